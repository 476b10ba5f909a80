"""Event-driven patterns over topics and queues: typed events in envelopes, retries.

Needs the extra `penstock[events]`. The patterns use Penstock's public API only.
"""

from penstock.events.applies import applies
from penstock.events.context import current_envelope, handling
from penstock.events.envelope import Envelope
from penstock.events.errors import (
    IncompatibleSchemaError,
    InvalidEventError,
    StreamDeletedError,
    UnknownEventTypeError,
    WrongVersionError,
)
from penstock.events.event import Event
from penstock.events.registry import Registry, registry
from penstock.events.retry import Retry
from penstock.events.store import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    AppendResult,
    EventStore,
    ExpectedVersion,
    Query,
    RecordedEvent,
)

__all__ = [
    "ANY",
    "AppendResult",
    "Envelope",
    "Event",
    "EventStore",
    "ExpectedVersion",
    "IncompatibleSchemaError",
    "InvalidEventError",
    "NO_STREAM",
    "Query",
    "RecordedEvent",
    "Registry",
    "Retry",
    "STREAM_EXISTS",
    "StreamDeletedError",
    "UnknownEventTypeError",
    "WrongVersionError",
    "applies",
    "current_envelope",
    "handling",
    "registry",
]
