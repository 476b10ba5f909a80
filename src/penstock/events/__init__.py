"""Event-driven patterns over topics and queues: typed events in envelopes, retries.

Needs the extra `penstock[events]`. The patterns use Penstock's public API only.
"""

from penstock.events.applies import applies
from penstock.events.context import current_envelope, handling
from penstock.events.envelope import Envelope
from penstock.events.errors import IncompatibleSchemaError, InvalidEventError, UnknownEventTypeError
from penstock.events.event import Event
from penstock.events.registry import Registry, registry
from penstock.events.retry import Retry

__all__ = [
    "Envelope",
    "Event",
    "IncompatibleSchemaError",
    "InvalidEventError",
    "Registry",
    "Retry",
    "UnknownEventTypeError",
    "applies",
    "current_envelope",
    "handling",
    "registry",
]
