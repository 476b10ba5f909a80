"""Event-driven patterns over topics and queues: typed events in envelopes, retries.

Needs the extra `penstock[events]`. The patterns use Penstock's public API only.
"""

from penstock.events.aggregate import Aggregate
from penstock.events.applies import applies
from penstock.events.bulkhead import Bulkhead
from penstock.events.bus import EventBus
from penstock.events.bus_letters import DeadLetter
from penstock.events.circuit_breaker import CircuitBreaker
from penstock.events.commands import Command, CommandBus, CommandHandled, InvalidCommandError, UnknownCommandError
from penstock.events.context import current_envelope, handling
from penstock.events.delivery import Delivery, ParkedEvent
from penstock.events.envelope import Envelope
from penstock.events.errors import (
    AggregateNotFoundError,
    IncompatibleSchemaError,
    InvalidEventError,
    LostKeyError,
    StreamDeletedError,
    UnknownEventTypeError,
    UnknownSubscriptionError,
    WrongVersionError,
)
from penstock.events.event import Event
from penstock.events.guard_errors import BackPressureError, BulkheadFullError, CircuitOpenError, RateLimitedError
from penstock.events.inbox import Inbox
from penstock.events.outbox import Outbox
from penstock.events.persistent_subscription import PersistentSubscription, SubscriptionInfo
from penstock.events.personal import FORGOTTEN, Personal
from penstock.events.projection import Projection
from penstock.events.projector import Lag, Projector
from penstock.events.queries import QueryBus
from penstock.events.rate_limit import RateLimit
from penstock.events.registry import Registry, registry
from penstock.events.retry import Retry
from penstock.events.sagas.errors import (
    SagaCancelledError,
    SagaFailedError,
    SagaNonDeterminismError,
    SagaStateError,
    SagaTimeoutError,
    StepFailedError,
    UnknownSagaError,
)
from penstock.events.sagas.info import OperationInfo, SagaHandle, SagaInfo
from penstock.events.sagas.saga import Saga
from penstock.events.sagas.sagas import Sagas
from penstock.events.sagas.step import StepInfo, current_step
from penstock.events.snapshots import SnapshotInfo
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
from penstock.events.subscription import Subscription
from penstock.events.timeline import Timeline, TimelineEntry, timeline

__all__ = [
    "ANY",
    "Aggregate",
    "AggregateNotFoundError",
    "AppendResult",
    "BackPressureError",
    "Bulkhead",
    "BulkheadFullError",
    "CircuitBreaker",
    "CircuitOpenError",
    "Command",
    "CommandBus",
    "CommandHandled",
    "DeadLetter",
    "Delivery",
    "Envelope",
    "Event",
    "EventBus",
    "EventStore",
    "ExpectedVersion",
    "FORGOTTEN",
    "Inbox",
    "IncompatibleSchemaError",
    "InvalidCommandError",
    "InvalidEventError",
    "Lag",
    "LostKeyError",
    "NO_STREAM",
    "OperationInfo",
    "Outbox",
    "ParkedEvent",
    "PersistentSubscription",
    "Personal",
    "Projection",
    "Projector",
    "Query",
    "QueryBus",
    "RateLimit",
    "RateLimitedError",
    "RecordedEvent",
    "Registry",
    "Retry",
    "STREAM_EXISTS",
    "Saga",
    "SagaCancelledError",
    "SagaFailedError",
    "SagaHandle",
    "SagaInfo",
    "SagaNonDeterminismError",
    "SagaStateError",
    "SagaTimeoutError",
    "Sagas",
    "SnapshotInfo",
    "StepFailedError",
    "StepInfo",
    "StreamDeletedError",
    "Subscription",
    "SubscriptionInfo",
    "Timeline",
    "TimelineEntry",
    "UnknownCommandError",
    "UnknownEventTypeError",
    "UnknownSagaError",
    "UnknownSubscriptionError",
    "WrongVersionError",
    "applies",
    "current_envelope",
    "current_step",
    "handling",
    "registry",
    "timeline",
]
