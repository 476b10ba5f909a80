"""The envelope: what is told of every event beside its data, and its form on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

import msgspec

from penstock.clock import Clock
from penstock.errors import InvalidTypeError
from penstock.events import cloudevents
from penstock.events.checks import checked_clock, checked_text
from penstock.events.context import current_envelope
from penstock.events.errors import UNREADABLE, InvalidEventError
from penstock.events.event import VERSION_MAX, Event
from penstock.events.message_id import new_message_id
from penstock.events.registry import registry
from penstock.events.validation import check_event

if TYPE_CHECKING:
    from penstock.events.registry import Data

EventClass = type[Event]


UNKNOWN = {"traceId": None, "userId": None}


class Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, eq=False):
    """One event with its identity and its history. Made by `wrap` or `from_json`; immutable.

    On the wire it is JSON of exactly these members: `messageId type version timestamp source correlationId` (then
    `causationId` where there is one) `data metadata`.
    """

    message_id: Annotated[str, msgspec.Meta(min_length=1)]
    """UUIDv7: unique, and ordered by time."""
    type: Annotated[str, msgspec.Meta(min_length=1)]
    """The event's type."""
    version: Annotated[int, msgspec.Meta(ge=1, le=VERSION_MAX)]
    """The version of the type's schema."""
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    """When it happened, with a time zone (UTC)."""
    source: str
    """Who published it."""
    correlation_id: str
    """The same for all that came of one beginning; the first event's own message id."""
    causation_id: str | None = None
    """The message id of the event that was being handled when this one was published; None: of nothing."""
    payload: msgspec.Raw = msgspec.field(name="data")
    """The data as it goes over the wire; see `data` and `event`."""
    metadata: dict[str, Any]
    """`traceId` and `userId` (None where they are not known), and whatever else was given."""

    @classmethod
    def wrap(
        cls,
        event: Event,
        source: str,
        *,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        metadata: Data | None = None,
        message_id: str | None = None,
        timestamp: datetime | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """The envelope of a new event.

        `source`: who publishes it. `correlation_id`, `causation_id`, and the trace and user of `metadata` (default:
        those of the event being handled; with none, this one begins a correlation). `message_id` (default: a new
        UUIDv7). `timestamp` (default: now by `clock`, or the machine's). Raises `InvalidTypeError`, `InvalidEventError`
        (a field is not of its type).
        """
        if not isinstance(event, Event):
            raise InvalidTypeError(f"event is {type(event).__name__}; an object of an Event class is needed")
        if type(source) is not str or not source:
            source = checked_text("source", source)
        if message_id or correlation_id or causation_id:
            message_id = _checked_id("message_id", message_id)
            correlation_id = _checked_id("correlation_id", correlation_id)
            causation_id = _checked_id("causation_id", causation_id)
        if metadata or timestamp:
            _check_options(metadata, timestamp)
        check_event(event)
        cause = current_envelope()
        message_id = message_id or new_message_id()
        inherited = UNKNOWN if cause is None else {name: cause.metadata.get(name) for name in UNKNOWN}
        return cls(
            message_id=message_id,
            type=event.event_type,
            version=event.event_version,
            timestamp=timestamp or _now(clock),
            source=source,
            correlation_id=correlation_id or (cause.correlation_id if cause else message_id),
            causation_id=causation_id or (cause.message_id if cause else None),
            payload=cast(msgspec.Raw, event),  # encoded once, together with the rest
            metadata={**inherited, **(metadata or {})},
        )

    @property
    def data(self) -> Data:
        """The event's fields, as a dict of JSON values. Raises `InvalidEventError` (they are no JSON)."""
        if isinstance(self.payload, Event):
            data = msgspec.to_builtins(self.payload)
        else:
            try:
                data = msgspec.json.decode(self.payload)
            except UNREADABLE as error:
                raise InvalidEventError(f"data of {self!r} are no JSON: {error}") from error
        return cast("Data", data)

    def event(self, cls: EventClass | None = None) -> Event:
        """The typed event, of `cls` (default: the latest class of its type), migrated from an old version.

        Raises `UnknownEventTypeError`, `InvalidEventError`.
        """
        if isinstance(self.payload, Event):
            own = self.payload.__class__
            if cls is own or (cls is None and registry.get(self.type).event_version == own.event_version):
                return self.payload
        raw = msgspec.json.encode(self.payload) if isinstance(self.payload, Event) else self.payload
        return registry.decode(self.type, self.version, raw, cls)

    def to_json(self) -> bytes:
        """The wire form, UTF-8. Raises `InvalidTypeError` (something in it has no JSON form)."""
        try:
            return _encode(self)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidTypeError(f"event {self.type!r} has no JSON form: {error}") from error

    @classmethod
    def from_json(cls, raw: bytes | str) -> Envelope:
        """The envelope of a wire form; what is in its data is looked at when it is asked for. Raises
        `InvalidEventError`, `InvalidTypeError` (neither bytes nor str)."""
        try:
            found = _decode(raw)
        except UNREADABLE as error:
            raise InvalidEventError(f"these bytes are no envelope: {error}") from error
        except TypeError as error:
            raise InvalidTypeError(f"raw is {type(raw).__name__}; bytes or a str is needed") from error
        if memoryview(found.payload)[0] not in _OPENINGS:
            raise InvalidEventError("these bytes are no envelope: Expected `object` - at `$.data`")
        return found

    def to_cloudevent(self) -> Data:
        """The envelope as a CloudEvents 1.0 event in structured form (a dict of JSON values). Raises
        `InvalidEventError` (its data are no JSON), `InvalidTypeError`."""
        try:
            return cloudevents.from_document(msgspec.json.decode(self.to_json()))
        except UNREADABLE as error:
            raise InvalidEventError(f"data of {self!r} are no JSON: {error}") from error

    @classmethod
    def from_cloudevent(cls, event: Data | bytes | str) -> Envelope:
        """The envelope of a CloudEvents 1.0 event in structured form (dict or JSON). Raises `InvalidEventError`."""
        try:
            return cls.from_json(msgspec.json.encode(cloudevents.to_document(event)))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, InvalidEventError):
                raise
            raise InvalidEventError(f"event is no CloudEvent in JSON: {error}") from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Envelope):
            return NotImplemented
        mine, its = _encode(self), _encode(other)
        try:
            return mine == its or bool(msgspec.json.decode(mine) == msgspec.json.decode(its))
        except UNREADABLE:  # data that are no JSON, and not the same
            return False

    def __hash__(self) -> int:
        return hash(self.message_id)

    def __repr__(self) -> str:
        return f"<Envelope {self.type} v{self.version} {self.message_id}>"


_OPENINGS = b"{["  # a list: of an event class with `array_like=True`
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Envelope).decode


def _checked_id(name: str, value: str | None) -> str | None:
    return checked_text(name, value) if value else None


def _check_options(metadata: object, timestamp: object) -> None:
    if metadata and not isinstance(metadata, Mapping):
        raise InvalidTypeError(f"metadata is {metadata!r}; a dict is needed")
    if timestamp and (not isinstance(timestamp, datetime) or timestamp.tzinfo is None):
        raise InvalidTypeError(f"timestamp is {timestamp!r}; a datetime with a time zone is needed")


def _now(clock: Clock | None) -> datetime:
    if clock is None:
        return datetime.now(UTC)
    try:
        return datetime.fromtimestamp(clock.time_ms() / 1000, UTC)
    except AttributeError:
        checked_clock(clock)
        raise
