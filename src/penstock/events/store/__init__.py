"""The event store: streams in one log, with an index of their own."""

from penstock.events.store.append_result import AppendResult
from penstock.events.store.event_store import EventStore
from penstock.events.store.expected import ANY, NO_STREAM, STREAM_EXISTS, ExpectedVersion
from penstock.events.store.query import Query
from penstock.events.store.recorded import RecordedEvent

__all__ = [
    "ANY",
    "NO_STREAM",
    "STREAM_EXISTS",
    "AppendResult",
    "EventStore",
    "ExpectedVersion",
    "Query",
    "RecordedEvent",
]
