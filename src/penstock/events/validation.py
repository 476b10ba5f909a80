"""Whether events are what their classes say: what could not be read again is refused before it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock._native.shapes import Shape, all_fit
from penstock.events.errors import InvalidEventError
from penstock.events.shapes import shape_of

if TYPE_CHECKING:
    from penstock.events.event import Event

_encoder = msgspec.json.Encoder()
_decoders: dict[type, msgspec.json.Decoder[Any]] = {}
_shapes: dict[type, Shape | None] = {}
_REFUSALS = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)


def check_event(event: Event) -> None:
    """Raises `InvalidEventError` unless the event's JSON is an event of its class."""
    cls = type(event)
    try:
        raw = _encoder.encode(event)
        if not all_fit([event], _shapes):
            _decoder(cls).decode(raw)
    except _REFUSALS as error:
        raise InvalidEventError(f"event {cls.event_type!r} is not valid: {error}") from error


def checked_lines(events: list[Event], kinds: set[type]) -> bytes:
    """The events' JSON, a line each. `kinds`: their classes. Raises `InvalidEventError`, naming the first bad event."""
    try:
        lines = _encoder.encode_lines(events)
        if all_fit(events, _shapes):
            return lines
        for cls in kinds:
            own = lines if len(kinds) == 1 else _encoder.encode_lines([one for one in events if type(one) is cls])
            _decoder(cls).decode_lines(own)
    except _REFUSALS:
        for event in events:
            check_event(event)
        raise
    return lines


def _decoder(cls: type) -> msgspec.json.Decoder[Any]:
    try:
        return _decoders[cls]
    except KeyError:
        found = _decoders[cls] = msgspec.json.Decoder(cls)
        _shapes[cls] = shape_of(cls)
        return found
