"""From the records of a stream to the state of an aggregate: each event is decoded straight to its class.

No envelope is made where the data alone can be decoded, see `Registry.decoders`. Whatever is not that plain (personal
data, old versions with upcasters, JSON of another writer) takes the way over the envelope.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from penstock._native.stored_events import StoredEvent
from penstock.events.aggregate import Aggregate, applier
from penstock.events.envelope import Envelope
from penstock.events.erasure import Erasure, Secrets
from penstock.events.errors import InvalidEventError, UnknownEventTypeError
from penstock.events.registry import SEALED_MARK, registry

if TYPE_CHECKING:
    from penstock.events.event import Event

Apply = Callable[[Any, Any], Any]


class Replay:
    """The way for one aggregate class. Safe for threads."""

    def __init__(self, cls: type[Aggregate], erasure: Erasure) -> None:
        self._cls = cls
        self._erasure = erasure
        self._generation = -1
        self._appliers: dict[str, Apply | None] = {}

    def run(self, aggregate: Aggregate, records: Iterable[StoredEvent]) -> tuple[StoredEvent | None, Secrets]:
        """Apply the events; returns the last record (None: there was none), and the secrets that opened any of them.

        Raises `UnknownEventTypeError`, `InvalidEventError`, `LostKeyError`, and what the aggregate's methods raise.
        """
        if self._generation != registry.generation:
            self._appliers, self._generation = {}, registry.generation
        appliers, decoded = self._appliers, registry.decoders.decoded
        secrets: Secrets = {}
        record = None
        for record in records:
            try:
                apply = appliers[record.type]
            except KeyError:
                apply = appliers[record.type] = self._applier(record.type)
            if apply is None:
                continue
            event = decoded(record)
            if event is None:
                event = self._slow(record, secrets)
            apply(aggregate, event)
        return record, secrets

    def _applier(self, event_type: str) -> Apply | None:
        """What applies events of a type; None: they are passed over."""
        try:
            return applier(self._cls, registry.get(event_type))
        except UnknownEventTypeError:
            if self._cls.unknown_events != "ignore":
                raise
            return None

    def _slow(self, record: StoredEvent, secrets: Secrets) -> Event:
        envelope = Envelope.from_json(record.value)
        data: bytes | msgspec.Raw = envelope.payload
        if SEALED_MARK in record.value:
            data = self._erasure.open_data(envelope.type, data, secrets)
        try:
            return registry.decode(envelope.type, envelope.version, data)
        except InvalidEventError as error:
            raise InvalidEventError(f"the event at position {record.position}: {error}") from error
