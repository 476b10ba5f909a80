"""An event as the store gives it back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from penstock._native.stored_events import StoredEvent, set_decoders
from penstock.events.envelope import Envelope
from penstock.events.event import Event
from penstock.events.registry import SEALED_MARK, registry

set_decoders(registry.decoders)


class RecordedEvent(StoredEvent):
    """A stored event.

    `stream` and `version` in it (from 0), `position` among all that is stored (from 1), `type` and `schema_version` in
    which it was written, `tags`, `timestamp_ms` (when it was stored), and `value`: the envelope's JSON as it was stored
    (personal data are sealed). What is in the envelope is decoded when it is asked for.
    """

    __slots__ = ()

    @property
    def envelope(self) -> Envelope:
        """The envelope. Raises `InvalidEventError`, `LostKeyError`."""
        envelope: Envelope | None = self._envelope
        if envelope is None:
            envelope = Envelope.from_json(self.value)
            if SEALED_MARK in self.value:
                envelope = self._owner.open(envelope)
            self._envelope = envelope
        return envelope

    def _event_of_envelope(self) -> Event:
        """The typed event where the data alone cannot simply be decoded."""
        return self.envelope.event()

    @property
    def timestamp(self) -> datetime:
        """When it happened."""
        return self.envelope.timestamp

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
        return isinstance(other, RecordedEvent) and (
            (self.stream, self.version, self.position, self.value)
            == (other.stream, other.version, other.position, other.value)
        )

    def __hash__(self) -> int:
        return hash((self.stream, self.version, self.position))

    def __repr__(self) -> str:
        return f"<RecordedEvent {self.type} version {self.version} of {self.stream!r} at position {self.position}>"
