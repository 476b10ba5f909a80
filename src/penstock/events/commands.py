"""Commands: validated, handled once for each idempotency key, tried again when somebody else was faster.

What a handler appends to the store is held, and stored at the end in one append together with the command's result:
all of it or none. So a death in the middle leaves nothing, and the same key never has its effects twice, in whatever
process. Thread safety: any thread or task dispatches.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import time
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from penstock.clock import SystemClock
from penstock.errors import ConcurrencyError, InvalidArgumentError, InvalidConfigError, InvalidTypeError, PenstockError
from penstock.events.bus_handler import positional_count
from penstock.events.checks import check_keywords, check_plain, checked_text, is_async, metadata_json
from penstock.events.context import current_envelope, handling
from penstock.events.envelope import Envelope
from penstock.events.event import Event
from penstock.events.message_id import new_message_id
from penstock.events.retry import Retry
from penstock.events.store.append_result import AppendResult
from penstock.events.store.event_store import EventStore
from penstock.events.store.expected import NO_STREAM
from penstock.events.unit_of_work import UnitOfWork, current_unit

F = TypeVar("F", bound=Callable[..., Any])
STREAM_PREFIX = "$command-"
_KEY_LENGTH_MAX = 200


class Command(msgspec.Struct, frozen=True):
    """A wish that something be done: `class PlaceOrder(Command): order_id: str`. Any msgspec struct or dataclass will
    do as well.
    """


class CommandHandled(Event, type="penstock.CommandHandled"):
    """A command with an idempotency key was handled. It is the event of the stream `$command-<key>`."""

    command: str
    """The command's type."""
    digest: str
    """SHA-256 of what it said."""
    result: Any = None
    """What its handler returned, as JSON."""
    appended: int = 0
    """When it returned what an append returned: the place of that event among those stored with this one."""


class InvalidCommandError(PenstockError, ValueError):
    """A command's fields are not of their types; the message names the field."""


class UnknownCommandError(PenstockError, KeyError):
    """No handler is registered for the type of a command or query."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class _Handler:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.is_async = is_async(function)
        self.takes_store = positional_count(function) >= 2
        try:
            returns = typing.get_type_hints(function).get("return", Any)
        except (NameError, TypeError):  # a name that only type checkers know
            returns = Any
        self.returns = Any if returns is None else returns


class CommandBus:
    """Takes commands to their handlers.

        commands = CommandBus(store)

        @commands.handler(PlaceOrder)
        def place(command, store):
            return store.append(f"order-{command.order_id}", OrderPlaced(...), expected_version=NO_STREAM)

        commands.dispatch(PlaceOrder("o-1", 4200), idempotency_key="k")

    `retry`: how often a command is handled anew after a `ConcurrencyError` (default 5 attempts, some milliseconds
    apart); nothing of the earlier attempt was stored. Raises `InvalidTypeError` (`store` is no `EventStore`).
    """

    def __init__(self, store: EventStore, retry: Retry | None = None) -> None:
        if not isinstance(store, EventStore):
            raise InvalidTypeError(f"store is {store!r}; an EventStore is needed")
        self.store = store
        self._retry = retry or Retry(max_attempts=5, delay=0.005, max_delay=0.1)
        self._handlers: dict[type, _Handler] = {}

    def handler(self, command_class: type) -> Callable[[F], F]:
        """Decorator of the one function, sync or async, that handles commands of a class: `handle(command)` or
        `handle(command, store)`. What it returns is the result of `dispatch`.

        Inside it, reads see what is stored; what it appends is stored when it has returned. Raises
        `InvalidConfigError` (the class has a handler), `InvalidTypeError`.
        """
        self.store._core.check_open()
        if not isinstance(command_class, type):
            raise InvalidTypeError(f"command_class is {command_class!r}; a class is needed")

        def register(function: F) -> F:
            if command_class in self._handlers:
                raise InvalidConfigError(f"{command_class.__name__} has a handler already")
            if not callable(function):
                raise InvalidTypeError(f"handler is {function!r}; a callable is needed")
            check_plain("handler", function)
            check_keywords("handler", function)
            self._handlers[command_class] = _Handler(function)
            return function

        return register

    def dispatch(self, command: Any, idempotency_key: str | None = None, **options: Any) -> Any:
        """Handle a command; its handler's result. What the handler raised comes through, and nothing was stored.

        `idempotency_key`: a command with a key that was handled before is not handled again: the first result, as JSON
        has it (converted to the type that the handler says it returns). What failed may be tried again with its key.
        `options`: `correlation_id`, `causation_id`, `metadata` for the events (default: those of the event being
        handled; each event is caused by the command).

        Raises `InvalidCommandError`, `UnknownCommandError`, `InvalidArgumentError` (the key belongs to another
        command), `ConcurrencyError` (after the last attempt), `InvalidConfigError` (an async handler, and an event loop
        runs: await `dispatch_async`), `ClosedError` (the store was closed).
        """
        attempt = _Attempt(self, command, idempotency_key, options)
        if attempt.handler.is_async:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return asyncio.run(self.dispatch_async(command, idempotency_key, **options))
            raise InvalidConfigError("the handler is async and an event loop runs; await dispatch_async instead")
        failures = 0
        while True:
            try:
                known = attempt.recorded()
                if known is not None:
                    return known[0]
                with attempt.scope():
                    result = attempt.call()
                    if inspect.iscoroutine(result):
                        result.close()
                        raise InvalidConfigError(
                            "the handler returned a coroutine; make it async, or await dispatch_async"
                        )
                return attempt.commit(result)
            except ConcurrencyError as error:
                failures += 1
                if attempt.nested or self._retry.gives_up(error, failures):
                    raise
                self._pause(failures)

    async def dispatch_async(self, command: Any, idempotency_key: str | None = None, **options: Any) -> Any:
        """`dispatch` for asyncio; handlers may be of either kind."""
        attempt = _Attempt(self, command, idempotency_key, options)
        failures = 0
        while True:
            try:
                known = attempt.recorded()
                if known is not None:
                    return known[0]
                with attempt.scope():
                    result = attempt.call()
                    if inspect.isawaitable(result):
                        result = await result
                return attempt.commit(result)
            except ConcurrencyError as error:
                failures += 1
                if attempt.nested or self._retry.gives_up(error, failures):
                    raise
                await asyncio.sleep(self._retry.delay_after(failures))

    def _pause(self, failures: int) -> None:
        if type(self.store.broker.clock) is SystemClock:  # on a virtual one nobody would advance it meanwhile
            time.sleep(self._retry.delay_after(failures))

    def __repr__(self) -> str:
        return f"<CommandBus {self.store.name!r} handlers={sorted(one.__name__ for one in self._handlers)}>"


class _Attempt:
    """One command on its way."""

    def __init__(self, bus: CommandBus, command: Any, key: str | None, options: Mapping[str, Any]) -> None:
        bus.store._core.check_open()
        self.handler = _handler_of(bus._handlers, command)
        self.store = bus.store
        self.command = _validated(command)
        self.key = _checked_key(key)
        self.nested = current_unit(bus.store) is not None
        self._unit = current_unit(bus.store) or UnitOfWork(bus.store)
        self._envelope = _command_envelope(bus.store, command, options)
        self._digest = _digest(command) if key else ""
        self._stream = f"{STREAM_PREFIX}{key}"

    def recorded(self) -> tuple[Any] | None:
        """The result of the command that had this key before."""
        if self.key is None:
            return None
        first = next(iter(self.store.read(self._stream, limit=1)), None)
        if first is None:
            return None
        event = first.event
        if not isinstance(event, CommandHandled):
            raise InvalidArgumentError(
                f"idempotency_key is {self.key!r}, whose stream {self._stream!r} holds other events ({first.type})"
            )
        if (event.command, event.digest) != (type(self.command).__name__, self._digest):
            raise InvalidArgumentError(
                f"idempotency_key is {self.key!r}, which belongs to another command ({event.command})"
            )
        if event.appended:
            for stored in self.store.read_all(after=first.position + event.appended - 1, limit=1):
                return (AppendResult(stored.version, stored.position),)
        return (msgspec.convert(event.result, self.handler.returns),)

    def scope(self) -> Any:
        """What the handler runs in."""
        if not self.nested:
            self._unit = UnitOfWork(self.store)
        return _Scope(self._unit, self._envelope)

    def call(self) -> Any:
        """The handler's result (of an async one: its coroutine)."""
        handler = self.handler
        return handler.function(self.command, self.store) if handler.takes_store else handler.function(self.command)

    def commit(self, result: Any) -> Any:
        """Store what the handler appended, and the result; the result. Inside another command's handler: with that."""
        if self.nested:
            if self.key is not None:
                with handling(self._envelope):
                    self.store.append(self._stream, self._record(result), NO_STREAM)
            return result
        first = None
        if self.key is not None:
            with handling(self._envelope):
                first = self.store._part(self._stream, self._record(result), NO_STREAM, None, ())
        return self._unit.settled(result, self._unit.commit(first))

    def _record(self, result: Any) -> CommandHandled:
        try:
            plain = msgspec.to_builtins(result, str_keys=True)
        except (TypeError, msgspec.MsgspecError) as error:
            raise InvalidTypeError(
                f"the handler of {type(self.command).__name__} returned {type(result).__name__}, which JSON cannot "
                f"hold; with an idempotency_key it has to ({error})"
            ) from error
        place = 0 if self.nested else self._unit.place_of(result)
        return CommandHandled(type(self.command).__name__, self._digest, plain, place)


class _Scope:
    """A unit of work, with the command as the cause of what is appended."""

    def __init__(self, unit: UnitOfWork, envelope: Envelope) -> None:
        self._contexts = (unit.open(), handling(envelope))

    def __enter__(self) -> None:
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self._contexts):
            context.__exit__(*error)


def _handler_of(handlers: Mapping[type, Any], command: Any) -> Any:
    for base in type(command).__mro__:
        if base in handlers:
            return handlers[base]
    known = sorted(one.__name__ for one in handlers)
    raise UnknownCommandError(f"{type(command).__name__} has no handler; there are some for: {', '.join(known)}")


def _validated(command: Any) -> Any:
    """The command, its fields checked against their types."""
    try:
        msgspec.convert(msgspec.to_builtins(command), type(command))
        msgspec.json.encode(command)
    except (TypeError, ValueError) as error:
        raise InvalidCommandError(f"{type(command).__name__} is not valid: {error}") from error
    return command


def _digest(command: Any) -> str:
    """What two commands with the same contents have in common."""
    contents = msgspec.to_builtins(command, str_keys=True)  # only those can be sorted
    return hashlib.sha256(msgspec.json.encode(contents, order="sorted")).hexdigest()


def _checked_key(key: str | None) -> str | None:
    if key is not None and (not isinstance(key, str) or not 1 <= len(key) <= _KEY_LENGTH_MAX):
        raise InvalidArgumentError(f"idempotency_key is {key!r}; a str of 1 to {_KEY_LENGTH_MAX} characters is needed")
    return key


def _command_envelope(store: EventStore, command: Any, options: Mapping[str, Any]) -> Envelope:
    unknown = sorted(set(options) - {"correlation_id", "causation_id", "metadata"})
    if unknown:
        raise InvalidArgumentError(f"{', '.join(unknown)}: allowed are correlation_id, causation_id and metadata")
    for name in ("correlation_id", "causation_id"):
        if options.get(name):
            checked_text(name, options[name])
    cause = current_envelope()
    identity = new_message_id()
    inherited = {"traceId": None, "userId": None}
    if cause is not None:
        inherited = {name: cause.metadata.get(name) for name in inherited}
    return msgspec.convert(
        {
            "messageId": identity,
            "type": type(command).__name__,
            "version": 1,
            "timestamp": store.broker.clock.time_ms() / 1000,
            "source": store.source,
            "correlationId": options.get("correlation_id") or (cause.correlation_id if cause else identity),
            "causationId": options.get("causation_id") or (cause.message_id if cause else None),
            "data": msgspec.Raw(msgspec.json.encode(command)),
            "metadata": msgspec.json.decode(metadata_json(inherited, options.get("metadata"))),
        },
        Envelope,
        strict=False,
    )
