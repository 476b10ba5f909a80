"""What is known of a stream beside its events: limits, deletion."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from penstock.events.errors import UNREADABLE, InvalidEventError


class StreamState(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The value of a state record: all of it, each time. The newest one of a stream counts."""

    truncate_before: int = 0
    """Versions below are not read any more."""
    max_age_ms: int | None = None
    """Events stored longer ago are not read any more."""
    max_count: int | None = None
    """Only so many of the newest events are read."""
    deleted_at: int = -1
    """The stream's last version when it was deleted; newer events make it exist again."""
    tombstoned: bool = False
    """Deleted for ever."""

    def to_json(self) -> bytes:
        """The value of the record."""
        return _encode(self)

    @classmethod
    def from_json(cls, raw: bytes) -> StreamState:
        """What a record's value says. Raises `InvalidEventError`."""
        try:
            return _decode(raw)
        except UNREADABLE as error:
            raise InvalidEventError(f"these bytes are no state of a stream: {error}") from error


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(StreamState).decode
NOTHING = StreamState()


class Stream(NamedTuple):
    """A stream as it is at the end of what the index knows."""

    name: str
    last_version: int
    """Of its last event, deleted or not; -1: it never had one."""
    state: StreamState = NOTHING

    @property
    def tombstoned(self) -> bool:
        """Whether it was deleted for ever."""
        return self.state.tombstoned

    @property
    def exists(self) -> bool:
        """Whether it has events that were not deleted with it."""
        return self.last_version > self.state.deleted_at

    @property
    def version(self) -> int:
        """Of its last event; -1 when it does not exist."""
        return self.last_version if self.exists else -1

    @property
    def first_version(self) -> int:
        """The least version that may be read, as far as truncation, deletion and `max_count` go."""
        first = max(self.state.truncate_before, self.state.deleted_at + 1)
        if self.state.max_count is not None:
            first = max(first, self.last_version + 1 - self.state.max_count)
        return first
