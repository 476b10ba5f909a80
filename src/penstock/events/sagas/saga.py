"""What a saga function is given: each operation is answered from the journal, or carried out and journaled."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from penstock.error_text import line_of
from penstock.errors import InvalidArgumentError, InvalidTypeError, RecordTooLargeError
from penstock.events.checks import checked_callable, checked_text
from penstock.events.event import Event
from penstock.events.retry import Retry
from penstock.events.sagas.codec import decode_value, encode_value, settled
from penstock.events.sagas.definition import step_name
from penstock.events.sagas.entry import Entry
from penstock.events.sagas.errors import (
    Diverged,
    Interruption,
    JournalBroken,
    ReplayEnded,
    SagaTimeoutError,
    StepFailedError,
    Stopped,
    Suspended,
)
from penstock.events.sagas.state import COMPENSATING, Signal
from penstock.events.sagas.step import StepInfo, current_step

if TYPE_CHECKING:
    from penstock.events.sagas.partition import Task

_log = logging.getLogger("penstock.sagas")
ONCE = Retry(max_attempts=1)
_MISSING: Any = object()
_STEPS = frozenset({"step", "attempt", "gaveup"})
_WAITS = frozenset({"wait", "woken", "expired"})
_TIMERS = frozenset({"timer"})
EVENT_SIGNAL = "event:"
CAUGHT = "it caught the exception by which a saga is left while it waits (catch Exception, not BaseException)"
REFUSED_MAX = 100  # of a function that is being left
REFUSED_PAUSE_S = 0.01


class Compensation:
    """What undoes a finished step."""

    __slots__ = ("args", "function", "key", "name", "op", "retry", "timeout")

    def __init__(
        self, op: int, name: str, key: str | None, function: Callable[..., Any], args: tuple[Any, ...],
        retry: Retry | None, timeout: float | None,
    ) -> None:  # fmt: skip
        self.op, self.name, self.key, self.function, self.args = op, name, key, function, args
        self.retry, self.timeout = retry, timeout


class Saga:
    """The saga that a saga function runs as; its first argument.

    The function is run again from its beginning whenever it goes on after a wait, a crash or a move to another process;
    operations that are in the journal are answered from there. So apart from its steps it must do the same every time:
    no clock (`now`), no random numbers, no I/O outside of steps. While it waits no thread is held: the wait leaves the
    function by an exception that is no `Exception` (`finally` blocks run). A function that catches it all the same
    (`except:`, `except BaseException:`) cannot go on: whatever it asks of its saga raises it again, and what it returns
    or raises then does not count; it is run again when the wait is over. One that catches it for ever is never left.
    """

    __slots__ = (
        "_clock", "_compensating", "_interrupted", "_next", "_now_ms", "_partition", "_refused", "_state", "_task",
        "undo",
    )  # fmt: skip

    def __init__(self, task: Task) -> None:
        self._task = task
        self._state = state = task.state
        self._partition = task.partition
        self._clock = task.partition.clock
        self._next = 0
        self._now_ms = state.started
        self._compensating = state.status == COMPENSATING
        self._interrupted: tuple[type[Interruption], tuple[Any, ...]] | None = None
        self._refused = 0  # operations since it was interrupted
        self.undo: list[Compensation] = []

    # --- about itself ----------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The saga's id."""
        return self._state.id

    @property
    def correlation_id(self) -> str:
        """What all events that come of it share; the saga's id unless it was started by an event or told otherwise."""
        return self._state.correlation

    @property
    def now(self) -> datetime:
        """The time of the last finished operation (UTC): the same in every replay."""
        return datetime.fromtimestamp(self._now_ms / 1000, UTC)

    @property
    def step_key(self) -> str:
        """Idempotency key of the step that is running, or else of the next one: the same in every attempt."""
        running = current_step()
        return self._key(self._next) if running is None else running.key

    def _key(self, op: int) -> str:
        state = self._state
        return f"{state.id}:{op}" if state.run == 1 else f"{state.id}~{state.run}:{op}"

    def undo_key(self, compensation: Compensation) -> str:
        """Idempotency key of a compensation: the same in every attempt."""
        return f"{compensation.key or self._key(compensation.op)}:compensate"

    # --- steps -----------------------------------------------------------------------------------------------------

    def step(
        self,
        function: Callable[..., Any],
        *args: Any,
        compensate: Callable[..., Any] | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        name: str | None = None,
        key: str | None = None,
    ) -> Any:
        """The result of `function(*args)`, which is called until it was journaled once, and never again.

        `compensate`: called with the same arguments if the saga fails later, newest step first. `retry`: default: one
        attempt. `timeout`: seconds for an attempt. `name`: default: the function's. `key`: the idempotency key that
        `step_key` and `current_step` tell (default: saga id and number of the step). Async functions are awaited.

        A crash between the effect and the journal repeats the effect: hand the key on to make it happen once.
        Raises `StepFailedError` after the last attempt, `InvalidTypeError` (no callable).
        """
        op = self._operation()
        if not callable(function):
            raise InvalidTypeError(f"function is {function!r}; a callable is needed")
        if name or key:
            name, key = _checked_names(name, key)
        name = name or step_name(function)
        entry = self._state.ops.get(op)
        if entry is None:
            if compensate is not None or retry is not None or timeout is not None:
                _check_step(compensate, retry, timeout)
            self._may_go_on()
            failures = 0
        else:
            self._check(entry, _STEPS, name)
            if entry.kind == "step":
                self._now_ms = entry.at
                if compensate is not None:
                    self.undo.append(Compensation(op, name, key, compensate, args, retry, timeout))
                return decode_value(entry.value)
            failures = self._failed_before(entry, op, name, key, compensate, args, retry, timeout)
        try:
            result = self._attempt(
                op, name, key or self._key(op), function, args, retry or ONCE, timeout, failures, compensate is not None
            )
        except StepFailedError:
            if compensate is not None and self._state.ops[op].undo:
                self.undo.append(Compensation(op, name, key, compensate, args, retry, timeout))
            raise
        except Interruption as interruption:
            self._note(interruption)
            raise
        if compensate is not None:
            self.undo.append(Compensation(op, name, key, compensate, args, retry, timeout))
        return result

    def _failed_before(
        self, entry: Entry, op: int, name: str, key: str | None, compensate: Callable[..., Any] | None,
        args: tuple[Any, ...], retry: Retry | None, timeout: float | None,
    ) -> int:  # fmt: skip
        """Attempts so far, when it is time for another one."""
        if entry.kind == "gaveup":
            self._now_ms = entry.at
            if entry.undo and compensate is not None:
                self.undo.append(Compensation(op, name, key, compensate, args, retry, timeout))
            raise StepFailedError(name, entry.error, entry.error_type)
        self._may_go_on()
        if not self._partition.is_due(self._task, entry):
            self._leave(Suspended(entry.due, entry.at))
        return entry.failures

    def _attempt(
        self, op: int, name: str, key: str, function: Callable[..., Any], args: tuple[Any, ...], retry: Retry,
        timeout: float | None, failures: int, undo: bool,
    ) -> Any:  # fmt: skip
        partition = self._partition
        while True:
            try:
                info = StepInfo(self._state.id, name, key, failures + 1, False)
                result = partition.caller.call(info, function, args, timeout)
            except Exception as error:
                failures += 1
                self._step_failed(op, name, retry, failures, error)
                continue
            try:
                raw = encode_value(f"the result of step {name!r}", result)
            except InvalidTypeError as error:  # it has happened, so it is undone like a finished one
                self._give_up(op, name, failures, error, undo)
            self._now_ms = at = self._clock.time_ms()
            entry = Entry("", "step", 0, op, name, at, msgspec.Raw(raw), failures)
            try:
                partition.journal(self._task, entry)
            except RecordTooLargeError as error:  # the same
                self._give_up(op, name, failures, error, undo)
            return settled(result, raw)

    def _step_failed(self, op: int, name: str, retry: Retry, failures: int, error: Exception) -> None:
        """Note an attempt; returns when the next one may begin at once."""
        if retry.gives_up(error, failures):
            self._give_up(op, name, failures, error, False)
        now_ms = self._clock.time_ms()
        due = now_ms + round(retry.delay_after(failures) * 1000)
        entry = Entry(
            kind="attempt", op=op, name=name, at=now_ms, failures=failures, due=due, error=line_of(error),
            error_type=type(error).__name__,
        )  # fmt: skip
        self._partition.journal(self._task, entry)
        if due > now_ms:
            raise Suspended(due, now_ms)
        self._may_go_on()

    def _give_up(self, op: int, name: str, failures: int, error: Exception, undo: bool) -> None:
        self._now_ms = at = self._clock.time_ms()
        reason, kind = line_of(error), type(error).__name__
        entry = Entry(
            kind="gaveup", op=op, name=name, at=at, failures=failures, error=reason, error_type=kind, undo=undo
        )
        self._partition.journal(self._task, entry)
        raise StepFailedError(name, reason, kind) from error

    def publish(self, event: Event, key: str | None = None) -> str:
        """Publish an event on the bus of `Sagas`, as a step; returns its message id, which a repetition shares.

        It carries the saga's correlation id. `key`: orders it among others (default: the saga's id). Raises
        `InvalidArgumentError` when the sagas have no bus, `InvalidTypeError` for what is no event.
        """
        if not isinstance(event, Event):
            raise InvalidTypeError(f"event is {event!r}; an object of an Event class is needed")
        message_id = str(uuid.uuid5(uuid.NAMESPACE_OID, self.step_key))
        publish = self._partition.publish
        name = f"publish {event.event_type}"
        return str(self.step(publish, event, key or self.id, message_id, self.correlation_id, name=name))

    # --- waiting ---------------------------------------------------------------------------------------------------

    def wait_for(
        self,
        what: str | type[Event],
        timeout: float | timedelta | None = None,
        where: Callable[[Any], bool] | None = None,
        default: Any = _MISSING,
    ) -> Any:
        """The data of a signal, or an event of a class, that was sent to this saga; what came before is kept.

        `timeout`: seconds (default: for ever), durable: a restart does not begin anew. When it is over: `default`, or
        `SagaTimeoutError` when none is given. `where(data)`: what is meant; the others are kept. Events come from
        the bus of `Sagas`, by correlation id, for the classes that the definition `awaits`.
        """
        name = _awaited(what)
        checked_callable("where", where)
        seconds = _seconds("timeout", timeout)
        op = self._operation()
        entry = self._state.ops.get(op)
        if entry is not None:
            self._check(entry, _WAITS, name)
            if entry.kind == "woken":
                self._now_ms = entry.at
                return decode_value(entry.value)
            if entry.kind == "expired":
                self._now_ms = entry.at
                return self._timed_out(name, default)
        self._may_go_on()
        found = self._find_signal(name, where)
        now_ms = self._clock.time_ms()
        if found is not None:
            signal, data = found
            self._now_ms = now_ms
            self._journal(Entry(kind="woken", op=op, name=name, at=now_ms, value=signal.value, signal=signal.offset))
            return data
        if entry is None:
            due = 0 if seconds is None else now_ms + round(seconds * 1000)
            entry = Entry(kind="wait", op=op, name=name, at=now_ms, due=due)
            self._journal(entry)
        if entry.due and self._partition.is_due(self._task, entry):
            self._now_ms = now_ms
            self._journal(Entry(kind="expired", op=op, name=name, at=now_ms))
            return self._timed_out(name, default)
        self._leave(Suspended(entry.due, entry.at))

    def _timed_out(self, name: str, default: Any) -> Any:
        if default is _MISSING:
            raise SagaTimeoutError(f"saga {self.id!r} waited for {name!r}, which did not come in time")
        return default

    def _find_signal(self, name: str, where: Callable[[Any], bool] | None) -> tuple[Signal, Any] | None:
        for signal in self._state.signals:
            if signal.name == name:
                data = decode_value(signal.value)
                if where is None or where(data):
                    return signal, data
        return None

    def sleep(self, seconds: float | timedelta) -> None:
        """Go on after so many seconds, counted from the first time: a restart does not begin anew.
        Raises `InvalidArgumentError`."""
        duration = _seconds("seconds", seconds)
        if duration is None:
            raise InvalidArgumentError("seconds is None; a number of seconds is needed")
        op = self._operation()
        entry = self._state.ops.get(op)
        if entry is None:
            self._may_go_on()
            now_ms = self._clock.time_ms()
            entry = Entry(kind="timer", op=op, name="sleep", at=now_ms, due=now_ms + round(duration * 1000))
            self._journal(entry)
        else:
            self._check(entry, _TIMERS, "sleep")
        if not (self._partition.is_due(self._task, entry) or any(later > op for later in self._state.ops)):
            self._may_go_on()
            self._leave(Suspended(entry.due, entry.at))
        self._now_ms = entry.due

    def _operation(self) -> int:
        """Number of the operation that begins."""
        running = current_step()
        if running is not None:
            raise InvalidArgumentError(f"step {running.step!r} uses its saga; only the saga function may do that")
        if self._interrupted is not None:
            self._refuse()
        op = self._next
        self._next = op + 1
        return op

    # --- helpers ---------------------------------------------------------------------------------------------------

    def _may_go_on(self) -> None:
        """Leave the function when the journal's end is as far as it may go."""
        if self._compensating or self._state.cancel:
            self._leave(ReplayEnded())
        if self._partition.stopping:
            self._leave(Stopped())

    def _check(self, entry: Entry, kinds: frozenset[str], name: str) -> None:
        if entry.kind not in kinds or entry.name != name:
            self._leave(
                Diverged(
                    f"operation {entry.op} is {entry.kind} {entry.name!r} in the journal, and {name!r} in the function"
                )
            )

    def _journal(self, entry: Entry) -> None:
        try:
            self._partition.journal(self._task, entry)
        except JournalBroken as broken:
            self._note(broken)
            raise

    def check_complete(self) -> None:
        """The function returned: nothing interrupted it, and the journal must not have more."""
        if self._interrupted is not None:
            _log.warning("saga %s: what its function returned does not count: %s", self.id, CAUGHT)
            self._interrupt_again()
        if self._next < len(self._state.ops):
            entry = self._state.ops[self._next]
            raise Diverged(f"the function ended; in the journal operation {entry.op} is {entry.kind} {entry.name!r}")

    def check_failure(self, error: BaseException) -> None:
        """The function raised: that is not its failure if something had interrupted it."""
        if self._interrupted is not None:
            _log.warning("saga %s: %s does not count: %s", self.id, line_of(error), CAUGHT)
            self._interrupt_again()

    # --- interruptions ---------------------------------------------------------------------------------------------

    def _leave(self, interruption: Interruption) -> NoReturn:
        self._note(interruption)
        raise interruption

    def _note(self, interruption: Interruption) -> None:
        """Remember it by its parts: the exception itself would hold the frames of the function, and they the saga."""
        self._interrupted = type(interruption), interruption.args

    def _refuse(self) -> NoReturn:
        """An operation after an interruption, as in a `finally` block, or because it was caught."""
        self._refused += 1
        if self._refused == REFUSED_MAX:
            _log.error("saga %s holds a worker: %s, again and again", self.id, CAUGHT)
        if self._refused >= REFUSED_MAX:
            time.sleep(REFUSED_PAUSE_S)
        self._interrupt_again()

    def _interrupt_again(self) -> NoReturn:
        assert self._interrupted is not None
        kind, args = self._interrupted
        raise kind(*args)


def _checked_names(name: Any, key: Any) -> tuple[str | None, str | None]:
    return checked_text("name", name) if name else None, checked_text("key", key) if key else None


def _check_step(compensate: Any, retry: Any, timeout: Any) -> None:
    if compensate is not None and not callable(compensate):
        raise InvalidTypeError(f"compensate is {compensate!r}; a callable is needed")
    if retry is not None and not isinstance(retry, Retry):
        raise InvalidTypeError(f"retry is {retry!r}; a Retry is needed")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 1e9
    ):
        raise InvalidArgumentError(f"timeout is {timeout!r}; seconds above 0 (to 1e9) are needed")


def _seconds(name: str, given: Any) -> float | None:
    value = given.total_seconds() if isinstance(given, timedelta) else given
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 3.2e9:
        raise InvalidArgumentError(f"{name} is {given!r}; seconds from 0 or a timedelta are needed")
    return float(value)


def _awaited(what: Any) -> str:
    if isinstance(what, str) and what:
        return checked_text("what", what)
    if isinstance(what, type) and issubclass(what, Event):
        return EVENT_SIGNAL + what.event_type
    raise InvalidTypeError(f"what is {what!r}; the name of a signal or an Event class is needed")
