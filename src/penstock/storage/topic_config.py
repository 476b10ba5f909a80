"""A topic's configuration: Kafka's names in snake_case, its defaults and limits, checked in one place.

Invariant: a `TopicConfig` is valid as a whole and never changes. Thread and process safety: immutable. Crash policy:
kept as a row of the catalog, which is SQLite's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from penstock.errors import InvalidConfigError, InvalidNameError

GIB = 1 << 30
DAY_MS = 86_400_000
MAX_PARTITIONS = 10_000
CODECS = ("producer", "none", "gzip", "snappy", "lz4", "zstd")
RETENTION_POLICIES = ("limits", "work-queue", "interest")
FULL_POLICIES = ("discard-old", "refuse-new")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")

# name: (least, most); -1 for "unlimited" is allowed where least is -1
_RANGES: dict[str, tuple[int, int]] = {
    "partitions": (1, MAX_PARTITIONS),
    "retention_ms": (-1, 2**63 - 1),
    "retention_bytes": (-1, 2**63 - 1),
    "segment_bytes": (1 << 20, 2**31 - 1),
    "segment_ms": (1, 2**63 - 1),
    "max_message_bytes": (1, GIB),
    "delete_retention_ms": (0, 2**63 - 1),
    "min_compaction_lag_ms": (0, 2**63 - 1),
    "max_compaction_lag_ms": (1, 2**63 - 1),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "cleanup_policy": ("delete", "compact", "compact,delete", "delete,compact", ""),
    "compression_type": CODECS,
    "message_timestamp_type": ("CreateTime", "LogAppendTime"),
    "retention_policy": RETENTION_POLICIES,
    "full_policy": FULL_POLICIES,
}


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Configuration of a topic. Names, defaults and limits as Kafka's topic configuration."""

    partitions: int = 1
    """Number of partitions, 1 to 10,000; may grow, never shrink."""
    retention_ms: int = 7 * DAY_MS
    """Segments whose newest record is older are deleted; -1: never."""
    retention_bytes: int = -1
    """The oldest segments are deleted while the partition is larger, or see `full_policy`; -1: unlimited."""
    segment_bytes: int = GIB
    """A new segment begins when this size would be passed; 1 MiB to 2 GiB - 1."""
    segment_ms: int = 7 * DAY_MS
    """A new segment begins when a record is this much newer than the first of the segment."""
    max_message_bytes: int = 1 << 20
    """Largest record (key + value + headers), up to 1 GiB."""
    cleanup_policy: str = "delete"
    """`delete` (by age and size), `compact` (keep the newest record of each key), both, or empty to keep for ever."""
    min_cleanable_dirty_ratio: float = 0.5
    """Compaction waits until this part of the sealed bytes came since the last one; 0 to 1."""
    delete_retention_ms: int = DAY_MS
    """How long a record without a value (a tombstone) outlives the records that it deletes."""
    min_compaction_lag_ms: int = 0
    """Records younger than this are not compacted away."""
    max_compaction_lag_ms: int = 2**63 - 1
    """Records older than this are compacted whatever the ratio."""
    compression_type: str = "producer"
    """`producer` keeps what the producer chose; otherwise none, gzip, snappy, lz4, zstd."""
    message_timestamp_type: str = "CreateTime"
    """`CreateTime` keeps the producer's timestamp, `LogAppendTime` stamps when stored."""
    retention_policy: str = "limits"
    """NATS's retention: `limits` (age and size), `work-queue` (besides, records that the topic's one share group has
    settled are deleted), `interest` (those that every share group and consumer group is done with)."""

    full_policy: str = "discard-old"
    """Where a partition is at `retention_bytes`: `discard-old` deletes its oldest segments, `refuse-new` refuses what
    would make it larger, with `TopicFullError`."""

    @property
    def full_bytes(self) -> int:
        """What would make a partition larger is refused; -1: nothing is."""
        return self.retention_bytes if self.full_policy == "refuse-new" else -1

    @property
    def discards_above_bytes(self) -> int:
        """The oldest segments are deleted while a partition is larger; -1: never."""
        return self.retention_bytes if self.full_policy == "discard-old" else -1

    @property
    def compacts(self) -> bool:
        """Whether only the newest record of each key is kept."""
        return "compact" in self.cleanup_policy

    @property
    def deletes(self) -> bool:
        """Whether old segments are deleted."""
        return "delete" in self.cleanup_policy

    def altered(self, changes: Mapping[str, Any]) -> TopicConfig:
        """This configuration with `changes`. Raises `InvalidConfigError` naming what was given and what is allowed."""
        known = {field.name for field in fields(TopicConfig)}
        for name, value in changes.items():
            if name not in known:
                raise InvalidConfigError(f"unknown configuration {name!r}; known are {', '.join(sorted(known))}")
            check(name, value)
        new = replace(self, **changes)
        if new.full_policy == "refuse-new" and new.retention_bytes < 0:
            raise InvalidConfigError(
                "full_policy is 'refuse-new' and retention_bytes -1 (unlimited); give retention_bytes, 0 or more"
            )
        return new

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for storing and showing."""
        return asdict(self)


def check(name: str, value: Any) -> None:
    """Refuse a value of the wrong type or outside its range."""
    if name in _CHOICES:
        if not isinstance(value, str) or value not in _CHOICES[name]:
            raise InvalidConfigError(f"{name} is {value!r}; allowed are {', '.join(map(repr, _CHOICES[name]))}")
        return
    if name == "min_cleanable_dirty_ratio":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise InvalidConfigError(f"{name} is {value!r}; allowed is a number from 0 to 1")
        return
    least, most = _RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidConfigError(f"{name} is {value!r}; allowed is an int from {least} to {most}")


def check_topic_name(name: object) -> str:
    """A topic name by Kafka's rules, or `InvalidNameError`."""
    if not isinstance(name, str):
        raise InvalidNameError(f"topic name is {type(name).__name__} {name!r}; a str is needed")
    if not _NAME.match(name) or name in (".", ".."):
        shown = name if len(name) <= 60 else name[:60] + "..."
        raise InvalidNameError(
            f"topic name {shown!r} is not allowed: 1 to 249 characters of A-Z a-z 0-9 . _ -, and not '.' or '..'"
        )
    return str.__str__(name)  # of a subclass, as the members of a StrEnum are: the plain one
