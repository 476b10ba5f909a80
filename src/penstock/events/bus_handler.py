"""One handler of a bus: which events it is for, how it is called, and what happens when it fails."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from penstock.errors import InvalidConfigError, InvalidTypeError
from penstock.events.checks import check_keywords, check_plain, is_async
from penstock.events.circuit_breaker import CircuitBreaker
from penstock.events.envelope import Envelope
from penstock.events.event import Event, EventMeta
from penstock.events.inbox import Inbox
from penstock.events.retry import Retry

EVERY = "*"
EventType = type[Event] | str
_GIVEN = frozenset({"event", "events", "envelope", "envelopes", "store"})
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


class Handler:
    """What `EventBus.on` was told; not changed afterwards."""

    def __init__(
        self,
        function: Callable[..., Any],
        types: tuple[EventType, ...],
        retry: Retry,
        filter: Callable[..., Any] | None,
        breaker: CircuitBreaker | None,
        batch: bool,
    ) -> None:
        self.function = function
        self.name = _ODD.sub("-", getattr(function, "__qualname__", type(function).__qualname__)).strip("-")
        self.types = types
        self.retry = retry
        self.breaker = breaker
        self.batch = batch
        self.inbox: Inbox | None = None
        self.own_transaction = False  # whether the handler runs inside the inbox's transaction
        self.is_async = is_async(function)
        self._takes_envelope = positional_count(function) >= 2
        self._filter = filter
        self._filter_takes_envelope = filter is not None and positional_count(filter) >= 2

    def call(self, event: Any, envelope: Any) -> Any:
        """The function's result (of an async one: its coroutine)."""
        return self.function(event, envelope) if self._takes_envelope else self.function(event)

    def wants(self, event: Event, envelope: Envelope) -> bool:
        """What the filter says."""
        if self._filter is None:
            return True
        return bool(self._filter(event, envelope) if self._filter_takes_envelope else self._filter(event))

    def takes(self, event_class: type[Event]) -> bool:
        """Whether it is for events of a class."""
        return any(_matches(wanted, event_class) for wanted in self.types)


def _matches(wanted: EventType, event_class: type[Event]) -> bool:
    if isinstance(wanted, str):
        return wanted in (EVERY, event_class.event_type)
    same_type = wanted is not Event and wanted.event_type == event_class.event_type  # another version of it
    return same_type or issubclass(event_class, wanted)


def positional_count(function: Callable[..., Any]) -> int:
    """How many positional arguments a function is to be given, `self` aside; an open end counts as three.

    Those behind the first that have a default are its own (`lambda event, name=name: ...`), unless they are named as
    what it can be given.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return 3
    found = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    given = [one for one in found[1:] if one.default is one.empty or one.name in _GIVEN]
    return len(found[:1]) + len(given)


def checked_types(types: tuple[Any, ...]) -> tuple[EventType, ...]:
    """Event classes, names of types or "*", or an error."""
    if not types:
        raise InvalidTypeError("event_types is empty; Event classes, names of event types or '*' are needed")
    for given in types:
        if not isinstance(given, EventMeta) and not (isinstance(given, str) and given):
            raise InvalidTypeError(f"event type is {given!r}; an Event class, the name of a type or '*' is needed")
    return types


def checked_function(function: Callable[..., Any], batch: bool) -> Callable[..., Any]:
    """A callable of one or two arguments, or an error."""
    if not callable(function):
        raise InvalidTypeError(f"handler is {function!r}; a callable is needed")
    check_plain("handler", function)
    check_keywords("handler", function)
    try:
        required = [
            one
            for one in inspect.signature(function).parameters.values()
            if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):  # a builtin that does not say
        return function
    if len(required) > 2 or positional_count(function) < 1:
        what = "(events) or (events, envelopes)" if batch else "(event) or (event, envelope)"
        raise InvalidConfigError(f"handler {function!r} takes {len(required)} arguments; {what} is needed")
    return function
