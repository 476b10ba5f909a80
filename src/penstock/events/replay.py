"""From the records of a stream to the state of an aggregate: each event is decoded straight to its class.

No envelope is made for an event whose type and version were seen before: they are found in the stored bytes, where they
always stand in the same order, and lead to a decoder that skips all but the data. Whatever is not that plain (personal
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
from penstock.events.personal import personal_fields
from penstock.events.registry import SEALED_MARK, registry

if TYPE_CHECKING:
    from penstock.events.event import Event

_ID_BEGINS = len('{"messageId":"')
_TYPE_BEGINS = b'","type":"'
_TYPE_ENDS = b',"timestamp":'
Apply = Callable[[Any, Any], Any]
_Entry = tuple[Callable[[bytes], Any] | None, Apply | None]


def _slowly(*_: Any) -> None:
    raise AssertionError("takes the way over the envelope")


class Replay:
    """The way for one aggregate class. Safe for threads."""

    def __init__(self, cls: type[Aggregate], erasure: Erasure) -> None:
        self._cls = cls
        self._erasure = erasure
        self._generation = -1
        self._entries: dict[bytes, _Entry] = {}

    def run(self, aggregate: Aggregate, records: Iterable[StoredEvent]) -> tuple[StoredEvent | None, Secrets]:
        """Apply the events; returns the last record (None: there was none), and the secrets that opened any of them.

        Raises `UnknownEventTypeError`, `InvalidEventError`, `LostKeyError`, and what the aggregate's methods raise.
        """
        if self._generation != registry.generation:
            self._entries, self._generation = {}, registry.generation
        entries = self._entries
        secrets: Secrets = {}
        record = None
        for record in records:
            value = record.value
            begin = value.find(_TYPE_BEGINS, _ID_BEGINS)
            key = value[begin : value.find(_TYPE_ENDS, begin)]
            entry = entries.get(key)
            decode, apply = self._entry(key, value) if entry is None else entry
            if apply is None:
                continue
            event = None
            if decode is not None:
                try:
                    event = decode(value).payload
                except (msgspec.MsgspecError, UnicodeError):
                    event = None  # told, or done, on the slow way
            if event is None:
                event, apply = self._slow(value, record, secrets)
            if apply is not None:
                apply(aggregate, event)
        return record, secrets

    def _entry(self, key: bytes, value: bytes) -> _Entry:
        """How events with these bytes between id and timestamp are decoded and applied."""
        envelope = Envelope.from_json(value)
        try:
            event_class = registry.get(envelope.type)
            apply = applier(self._cls, event_class)
        except UnknownEventTypeError:
            if self._cls.unknown_events != "ignore":
                raise
            apply = None
        entry: _Entry = (None, apply)
        if apply is not None:
            if registry.upcasts(envelope.type, envelope.version) or personal_fields(event_class) is not None:
                entry = (None, _slowly)
            else:
                entry = (_data_decoder(event_class), apply)
        if key.startswith(_TYPE_BEGINS):
            self._entries[key] = entry
        return entry

    def _slow(self, value: bytes, record: StoredEvent, secrets: Secrets) -> tuple[Event | None, Apply | None]:
        envelope = Envelope.from_json(value)
        data: bytes | msgspec.Raw = envelope.payload
        if SEALED_MARK in value:
            data = self._erasure.open_data(envelope.type, data, secrets)
        try:
            event = registry.decode(envelope.type, envelope.version, data)
        except InvalidEventError as error:
            raise InvalidEventError(f"the event at position {record.position}: {error}") from error
        return event, applier(self._cls, type(event))


_decoders: dict[type[Event], Callable[[bytes], Any]] = {}


def _data_decoder(event_class: type[Event]) -> Callable[[bytes], Any]:
    """Decodes an envelope to an object whose `payload` is the event."""
    found = _decoders.get(event_class)
    if found is None:
        shape = msgspec.defstruct("Data", [("payload", event_class, msgspec.field(name="data"))], gc=False)
        found = _decoders[event_class] = msgspec.json.Decoder(shape).decode
    return found
