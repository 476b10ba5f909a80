"""An event as the store gives it back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from penstock._native.records import Record
from penstock.errors import CorruptionError
from penstock.events.envelope import Envelope
from penstock.events.erasure import MARK, Erasure
from penstock.events.event import Event
from penstock.events.store.record_format import SCHEMA, TAG, TYPE, VERSION


class RecordedEvent:
    """A stored event. What is in its envelope is decoded when it is asked for."""

    __slots__ = ("_envelope", "_erasure", "_event", "_record", "schema_version", "stream", "tags", "type", "version")

    def __init__(self, record: Record, erasure: Erasure) -> None:
        self._record = record
        self._erasure = erasure
        self._envelope: Envelope | None = None
        self._event: Event | None = None
        found: dict[str, str] = {}
        tags = []
        for name, value in record.headers:
            text = (value or b"").decode()
            if name == TAG:
                tags.append(text)
            else:
                found[name] = text
        if record.key is None or VERSION not in found or TYPE not in found or SCHEMA not in found:
            raise CorruptionError(
                f"the record at offset {record.offset} is no event", expected="headers version, type, schema", got=found
            )
        self.stream: str = record.key.decode()
        """The stream it belongs to."""
        self.version = int(found[VERSION])
        """Its number in the stream, from 0."""
        self.type = found[TYPE]
        """The event's type."""
        self.schema_version = int(found[SCHEMA])
        """The version of the type's schema in which it was written."""
        self.tags = tuple(tags)
        """Its tags."""

    @property
    def position(self) -> int:
        """Its place among all that is stored, from 1; later events have greater ones."""
        return self._record.offset + 1

    @property
    def value(self) -> bytes:
        """The envelope as it was stored; personal data are sealed."""
        return self._record.value or b""

    @property
    def envelope(self) -> Envelope:
        """The envelope. Raises `InvalidEventError`, `LostKeyError`."""
        if self._envelope is None:
            envelope = Envelope.from_json(self.value)
            self._envelope = self._erasure.open(envelope) if MARK in self.value else envelope
        return self._envelope

    @property
    def event(self) -> Event:
        """The typed event, migrated from an old version of its type. Raises `UnknownEventTypeError`,
        `InvalidEventError`."""
        if self._event is None:
            self._event = self.envelope.event()
        return self._event

    @property
    def timestamp(self) -> datetime:
        """When it happened."""
        return self.envelope.timestamp

    @property
    def timestamp_ms(self) -> int:
        """When it happened, in milliseconds since the epoch (rounded down)."""
        return self._record.timestamp_ms

    @property
    def data(self) -> dict[str, Any]:
        """The data, as a dict of JSON values, as they were written."""
        return self.envelope.data

    @property
    def message_id(self) -> str:
        """The envelope's message id."""
        return self.envelope.message_id

    @property
    def correlation_id(self) -> str:
        """The envelope's correlation id."""
        return self.envelope.correlation_id

    @property
    def causation_id(self) -> str | None:
        """The envelope's causation id."""
        return self.envelope.causation_id

    @property
    def metadata(self) -> dict[str, Any]:
        """The envelope's metadata."""
        return self.envelope.metadata

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordedEvent) and self._record == other._record

    def __hash__(self) -> int:
        return hash((self.stream, self.version, self.position))

    def __repr__(self) -> str:
        return f"<RecordedEvent {self.type} version {self.version} of {self.stream!r} at position {self.position}>"
