"""Names of places in a log: a partition of a topic, and an offset with its time."""

from __future__ import annotations

from typing import Any, NamedTuple

from penstock.errors import InvalidArgumentError, InvalidTypeError


class TopicPartition(NamedTuple):
    """A partition of a topic. Equal to, and hashed like, the tuple `(topic, partition)`."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class OffsetAndTimestamp(NamedTuple):
    """An offset and the timestamp (milliseconds since the epoch) of the record there."""

    offset: int
    timestamp_ms: int


def checked_partition(value: Any) -> TopicPartition:
    """`value` as a `TopicPartition`.

    Raises `InvalidTypeError` when it is not a tuple of `str` and `int`, `InvalidArgumentError` when the number is < 0.
    """
    if not isinstance(value, tuple) or len(value) != 2:
        raise InvalidTypeError(f"partition is {value!r}; give a TopicPartition(topic, partition)")
    topic, partition = value
    if not isinstance(topic, str) or isinstance(partition, bool) or not isinstance(partition, int):
        raise InvalidTypeError(f"partition is {value!r}; give a TopicPartition of a str and an int")
    if partition < 0:
        raise InvalidArgumentError(f"partition is {value!r}; give a partition number >= 0")
    return TopicPartition(topic, partition)
