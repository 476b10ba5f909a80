"""Names of places in a log: a partition of a topic, and an offset with its time."""

from __future__ import annotations

from typing import Any, NamedTuple

from penstock._native.words import OFFSET_MAX
from penstock.errors import InvalidArgumentError, InvalidTypeError

METADATA_MAX = 4096


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


class OffsetAndMetadata(NamedTuple):
    """A committed offset (of the next record to read) and a note of at most 4,096 characters."""

    offset: int
    metadata: str = ""


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


def checked_offset(value: Any) -> OffsetAndMetadata:
    """`value` (an offset, or one with metadata) as an `OffsetAndMetadata` that can be committed."""
    offset, metadata = value if isinstance(value, OffsetAndMetadata) else (value, "")
    if isinstance(offset, bool) or not isinstance(offset, int):
        raise InvalidTypeError(f"offset is {offset!r}; give an int or an OffsetAndMetadata")
    if not 0 <= offset <= OFFSET_MAX:
        raise InvalidArgumentError(f"offset is {offset}; give an int from 0 to {OFFSET_MAX}")
    if not isinstance(metadata, str):
        raise InvalidTypeError(f"metadata is {metadata!r}; give a str")
    if len(metadata) > METADATA_MAX:
        raise InvalidArgumentError(f"metadata has {len(metadata)} characters; at most {METADATA_MAX} are allowed")
    return OffsetAndMetadata(offset, metadata)
