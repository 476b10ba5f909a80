"""Sagas over a topic: define, start, signal, run, look into, cancel, retry."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec

import penstock
from penstock.errors import (
    ClosedError,
    InvalidArgumentError,
    InvalidConfigError,
    InvalidTypeError,
    TopicExistsError,
)
from penstock.events.at_the_end import at_the_end
from penstock.events.checks import check_unicode, checked_broker, checked_list, checked_text
from penstock.events.context import current_envelope
from penstock.events.event import Event
from penstock.events.guard_errors import BackPressureError
from penstock.events.message_id import new_message_id
from penstock.events.sagas.codec import encode_value
from penstock.events.sagas.definition import Definition
from penstock.events.sagas.entry import Entry, encode
from penstock.events.sagas.errors import SagaStateError, UnknownSagaError
from penstock.events.sagas.info import SagaHandle, SagaInfo, saga_info, shown
from penstock.events.sagas.runner import Runner
from penstock.events.sagas.saga import EVENT_SIGNAL
from penstock.events.sagas.state import PENDING, RETRIABLE, STATUSES, SagaState
from penstock.events.sagas.step import Caller
from penstock.events.sagas.store import SagaStore
from penstock.events.sagas.view import View
from penstock.stopping import stopped_by_signals
from penstock.storage.forks import closes_in_child
from penstock.storage.topic_config import check_topic_name

F = TypeVar("F", bound=Callable[..., Any])
DAY_MS = 86_400_000
SEGMENT_BYTES = 64 << 20
ID_MAX = 500
WORKERS_MAX = 1000
CLOSED_PAUSE_S = 1.0


class Sagas:
    """Sagas of a broker, durable in the topic `name`, which is made when it is missing.

    `partitions`: into how many parts processes can share the work (default 8; only when the topic is made).
    `retention_ms`: how long finished sagas can be looked up (default: seven days); a start with the id of one that is
    forgotten is a new saga. `bus`: an `EventBus` for `Saga.publish` and for awaited events.

    Any number of processes may start, signal and run the sagas of a name; a saga is run by one at a time.
    Thread-safe. Raises `InvalidNameError`, `InvalidConfigError`.
    """

    def __init__(
        self,
        broker: penstock.Broker,
        name: str = "sagas",
        *,
        partitions: int = 8,
        retention_ms: int = 7 * DAY_MS,
        bus: Any = None,
    ) -> None:
        if type(retention_ms) is not int or retention_ms < 1:
            raise InvalidConfigError(f"retention_ms is {retention_ms!r}; allowed is an int from 1")
        self.broker = checked_broker(broker)
        self.topic = name = check_topic_name(name)
        self.clock = broker.clock
        self.retention_ms = retention_ms
        self.bus = bus
        with contextlib.suppress(TopicExistsError):  # made by somebody before
            broker.create_topic(name, partitions=partitions, retention_ms=-1, segment_bytes=SEGMENT_BYTES)
        self._append = broker.topic(name).append
        self._definitions: dict[str, Definition] = {}
        self._store = SagaStore(broker.path / "sagas" / f"{name}.sqlite3")
        self._caller = Caller(self.clock)
        self._view = View(self)
        self._runner: Runner | None = None
        self._running = threading.Lock()
        self._closed = False
        self._expired = self.clock.monotonic()
        self._waiting: dict[str, threading.Event] = {}
        self._waits: dict[int, dict[str, tuple[tuple[int, int], float]]] = {}  # see `OwnedPartition.set_timer`
        closes_in_child(self)

    def leave_parent(self, idle: bool) -> None:
        """In the child of a fork, where no thread runs sagas: nobody does here, and it may be begun."""
        self._runner, self._running = None, threading.Lock()
        self._caller = Caller(self.clock)
        self._view = View(self)
        self._waiting = {}

    # --- definitions -----------------------------------------------------------------------------------------------

    def define(self, name: str | None = None, *, awaits: Iterable[type[Event]] = ()) -> Callable[[F], F]:
        """Decorator of a saga function: `function(saga, *args)`, see `Saga`. `name`: default: the function's.

        `awaits`: classes of events that it waits for (`saga.wait_for(OrderShipped)`); the bus brings them by
        correlation id. Defining a name again replaces it. Raises `InvalidTypeError`, `InvalidArgumentError`.
        """
        self._check_open()
        if name is not None and not isinstance(name, str):
            raise InvalidTypeError(f"name is {name!r}; a str that is not empty is needed: @sagas.define('place-order')")
        if name is not None:
            name = checked_text("name", name)
        classes = checked_list("awaits", awaits)
        if classes and self.bus is None:
            raise InvalidArgumentError("awaits needs events: give Sagas a bus")

        def register(function: F) -> F:
            definition = Definition(name or function.__name__, function)
            self._definitions[definition.name] = definition
            for event_class in classes:
                self._listen(event_class)
            runner = self._runner
            if runner is not None:
                runner.wake_all_of(definition.name)
            return function

        return register

    def _listen(self, event_class: type[Event]) -> None:
        if not isinstance(event_class, type) or not issubclass(event_class, Event):
            raise InvalidTypeError(f"awaits has {event_class!r}; Event classes are needed")

        def forward(event: Event, envelope: Any) -> None:
            if self._closed:  # it is for whoever runs them elsewhere, or later
                raise BackPressureError(f"sagas {self.topic!r} were closed", CLOSED_PAUSE_S)
            self.signal_event(event, envelope.correlation_id)

        forward.__qualname__ = f"sagas.{self.topic}.{event_class.event_type}"
        self.bus.on(event_class, group=f"{self.topic}-{event_class.event_type}")(forward)

    # --- starting and signalling -----------------------------------------------------------------------------------

    def start(
        self,
        definition: str | Callable[..., Any],
        *args: Any,
        saga_id: str | None = None,
        correlation_id: str | None = None,
    ) -> SagaHandle:
        """Start a saga: stored when this returns, run by whoever runs the sagas.

        `args`: JSON values, msgspec structs or events. `saga_id` (default: a new UUID): a second start with it changes
        nothing and gives a handle on the same saga. `correlation_id`: default: that of the event being handled, or the
        saga's id. Raises `UnknownSagaError`, `InvalidArgumentError`, `InvalidTypeError` (not serialisable).
        """
        self._check_open()
        found = self._definition(definition)
        saga_id = new_message_id() if saga_id is None else _checked_id("saga_id", saga_id)
        if correlation_id is not None:
            correlation_id = _checked_id("correlation_id", correlation_id)
        else:
            cause = current_envelope()
            correlation_id = "" if cause is None else cause.correlation_id
        entry = Entry(
            kind="start",
            name=found.name,
            at=self.clock.time_ms(),
            value=found.encode(args),
            correlation="" if correlation_id == saga_id else correlation_id,
        )
        stored = self._append(encode(entry), saga_id.encode())
        return SagaHandle(self, saga_id, stored.partition)

    def _definition(self, given: Any) -> Definition:
        found = self._definitions.get(given) if isinstance(given, str) else None
        if found is None and callable(given):
            found = next((one for one in self._definitions.values() if one.function is given), None)
        if found is None:
            known = ", ".join(map(repr, sorted(self._definitions))) or "none"
            raise UnknownSagaError(f"definition is {given!r}; defined are {known}")
        return found

    def handle(self, saga_id: str) -> SagaHandle:
        """A handle on a saga that was started, by whomever. Raises `UnknownSagaError`."""
        self._existing(saga_id)
        return SagaHandle(self, saga_id, -1)

    def signal(self, saga_id: str, name: str, data: Any = None) -> None:
        """Send a signal to a saga: `saga.wait_for(name)` returns `data`. Kept until it is waited for, also when the
        saga was not started yet; one that is over ignores it. Raises `InvalidTypeError`.
        """
        self._check_open()
        name = checked_text("name", name)
        value = msgspec.Raw(encode_value("data", data))
        self._command(saga_id, Entry(kind="signal", name=name, at=self.clock.time_ms(), value=value))

    def signal_event(self, event: Event, correlation_id: str) -> int:
        """Send an event to the sagas with a correlation id, for `wait_for` of its class; returns to how many.
        Raises `InvalidTypeError`."""
        self._check_open()
        correlation_id = checked_text("correlation_id", correlation_id)
        if not isinstance(event, Event):
            raise InvalidTypeError(f"event is {event!r}; an object of an Event class is needed")
        found = self._with_correlation(correlation_id)
        value = msgspec.Raw(encode_value("event", event))
        for saga_id in found:
            entry = Entry(kind="signal", name=EVENT_SIGNAL + event.event_type, at=self.clock.time_ms(), value=value)
            self._command(saga_id, entry)
        return len(found)

    def _with_correlation(self, correlation_id: str) -> list[str]:
        recent = self._view.recent()
        found = {state.id for state in recent.values() if state.correlation == correlation_id}
        found.update(self._store.with_correlation(correlation_id))
        if correlation_id in recent or self._store.load(correlation_id) is not None:
            found.add(correlation_id)
        return sorted(found)

    def _command(self, saga_id: str, entry: Entry) -> None:
        self._append(encode(entry), _checked_id("saga_id", saga_id).encode())

    # --- looking -----------------------------------------------------------------------------------------------------

    def list(self, status: str | None = None, definition: str | None = None, limit: int = 1000) -> list[SagaInfo]:
        """Sagas, unfinished and finished ones that are still remembered, the latest first.

        `status`: running, waiting, compensating, completed, failed, cancelled or compensation_failed. Raises
        `InvalidArgumentError`.
        """
        self._check_open()
        allowed = [one for one in STATUSES if one != PENDING]
        if status is not None and status not in allowed:
            raise InvalidArgumentError(f"status is {status!r}; allowed are {', '.join(map(repr, allowed))}")
        if type(limit) is not int or limit < 1:
            raise InvalidArgumentError(f"limit is {limit!r}; allowed is an int from 1")
        if definition is not None:
            checked_text("definition", definition)
        limit = min(limit, sys.maxsize)
        recent = self._view.recent()
        found = {state.id: state for state in self._store.select(status, definition, limit)}
        found.update(recent)
        wanted = [
            state
            for state in found.values()
            if state.status != PENDING and status in (None, state.status) and definition in (None, state.definition)
        ]
        wanted.sort(key=lambda state: state.updated, reverse=True)
        return [saga_info(state) for state in wanted[:limit]]

    def count(self) -> dict[str, int]:
        """How many sagas have which status."""
        self._check_open()
        recent = self._view.recent()
        counts = self._store.count()
        for saga_id, state in recent.items():
            before = self._store.load(saga_id)
            if before is not None:
                counts[before.status] -= 1
            counts[state.status] = counts.get(state.status, 0) + 1
        return {status: number for status, number in counts.items() if number and status != PENDING}

    def inspect(self, saga_id: str) -> SagaInfo:
        """Everything about a saga: status, steps with results and errors, signals. Raises `UnknownSagaError`."""
        return saga_info(self._existing(saga_id))

    def _existing(self, saga_id: str) -> SagaState:
        self._check_open()
        state = self._view.find(_checked_id("saga_id", saga_id))
        if state is None or state.status == PENDING:
            raise UnknownSagaError(f"saga_id is {saga_id!r}; no such saga was started, or it was forgotten")
        return state

    # --- acting ------------------------------------------------------------------------------------------------------

    def cancel(self, saga_id: str) -> None:
        """End a saga before its next step, and compensate its finished ones. Raises `UnknownSagaError`,
        `SagaStateError` (it is over, or being compensated).
        """
        state = self._existing(saga_id)
        if state.finished or state.status == "compensating":
            raise SagaStateError(f"saga {saga_id!r} is {state.status}; only running and waiting ones can be cancelled")
        self._command(saga_id, Entry(kind="cancel", at=self.clock.time_ms()))

    def retry(self, saga_id: str) -> None:
        """Try a saga again that failed: its compensations go on where they failed; one that was compensated runs anew
        from its beginning (with other step keys); one that met another journal goes on. Raises `UnknownSagaError`,
        `SagaStateError`.
        """
        state = self._existing(saga_id)
        if state.status not in RETRIABLE:
            raise SagaStateError(
                f"saga {saga_id!r} is {shown(state)}; failed, cancelled and compensation_failed can be retried"
            )
        self._command(saga_id, Entry(kind="retry", at=self.clock.time_ms()))

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self, workers: int = 4) -> None:
        """Run sagas until stopped, so many at once. In the main thread, SIGTERM and SIGINT stop it: steps in hand are
        finished, the rest goes on elsewhere; a second signal does not wait for that. Several processes share the work.
        Raises `SagaStateError` when this object runs them already, and what ended a worker.
        """
        with stopped_by_signals(self._ask_to_stop) as signalled:
            self.start_background(workers)
            if signalled.is_set():
                self._ask_to_stop()
            runner = self._runner
            try:
                if runner is not None:
                    runner.join()
            except BaseException:  # what ended it, or a second SIGINT: nobody is waited for
                self._ask_to_stop()
                self._runner = None
                raise
            self.stop()

    def start_background(self, workers: int = 4) -> None:
        """Run sagas in threads of this process until `stop`.

        `workers`: how many at once. Raises `InvalidArgumentError`, `SagaStateError` (this object runs them already).
        """
        if type(workers) is not int or not 1 <= workers <= WORKERS_MAX:
            raise InvalidArgumentError(f"workers is {workers!r}; allowed is an int from 1 to {WORKERS_MAX}")
        with self._running:
            self._check_open()
            if self._runner is not None:
                raise SagaStateError(f"sagas {self.topic!r} are run by this object already")
            self._runner = Runner(self)
            self._runner.start(workers)

    def _ask_to_stop(self) -> None:
        runner = self._runner
        if runner is not None:
            runner.stop()

    def stop(self) -> None:
        """End what `run` or `start_background` began, after the steps in hand; raises what ended it before. In a step:
        ask for it."""
        runner = self._runner
        if runner is not None and runner.is_current:
            runner.stop()
            return
        with self._running:
            runner, self._runner = self._runner, None
            if runner is not None:
                runner.stop()
                runner.join()
        self._caller.close()

    def run_until_idle(self) -> int:
        """Run all that can run now, in this thread, until only timers of later and signals are waited for.

        Returns how many times a saga was run. Parts of the work that a live process has stay there. For tests and
        scripts: with a `VirtualClock`, advance it and call again. Raises `SagaStateError` while this object runs
        them in the background.
        """
        with self._running:
            self._check_open()
            if self._runner is not None:
                raise SagaStateError(f"sagas {self.topic!r} are run in the background already")
            self._runner = Runner(self)
            try:
                return self._runner.run_until_idle()
            finally:
                self._runner = None

    def close(self) -> None:
        """Stop, and let go of files; what else is called raises `ClosedError` then. May be repeated. Raises what ended
        the running, once all is closed; `SagaStateError` in a step, which it would have to wait for."""
        runner = self._runner
        if runner is not None and runner.is_current:
            raise SagaStateError(
                f"close of sagas {self.topic!r} was called in one of their steps; stop asks for the end"
            )
        with at_the_end(close=self._let_go):
            self.stop()

    def _let_go(self) -> None:
        self._closed = True
        with at_the_end(close=self._store.close):
            self._view.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"sagas {self.topic!r} were closed")
        self.broker._check_open()

    def __enter__(self) -> Sagas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for the other parts ---------------------------------------------------------------------------------------

    def _find(self, saga_id: str, partition: int) -> SagaState | None:
        """A saga as this process knows it now; None: started, and not seen by the one who runs it."""
        self._check_open()
        runner = self._runner
        owned = None if runner is None else runner.partitions.get(partition)
        if owned is None or owned.stopping:
            return self._view.find(saga_id)
        task = owned.tasks.get(saga_id)
        return task.state if task is not None else self._store.load(saga_id)

    def _wait(self, saga_id: str, partition: int, seconds: float) -> None:
        """Until a saga may have changed."""
        runner = self._runner
        if runner is None or partition not in runner.partitions:
            self._view.wait(seconds)
            return
        ended = self._waiting.setdefault(saga_id, threading.Event())
        state = self._find(saga_id, partition)  # it may have ended before somebody was there to be told
        if state is None or not state.finished:
            ended.wait(seconds)
        self._waiting.pop(saga_id, None)

    def _tell_waiting(self, saga_id: str) -> None:
        if self._waiting:
            ended = self._waiting.get(saga_id)
            if ended is not None:
                ended.set()

    def _checkpoint(self, partition: int) -> int:
        """From where the log of a partition has to be read."""
        log = self.broker.topic(self.topic).log(partition)
        offset = self._store.checkpoints().get(partition)
        if offset is not None and offset > log.log_end_offset:  # a power cut took the end of the log
            self._store.forget_partition(partition)
            offset = None
        return log.log_start_offset if offset is None else max(offset, log.log_start_offset)

    @contextlib.contextmanager
    def _reader(self, partition: int, offset: int) -> Iterator[penstock.Consumer]:
        place = penstock.TopicPartition(self.topic, partition)
        with self.broker.consumer() as consumer:
            consumer.assign([place])
            consumer.seek(place, offset)
            yield consumer

    def _make_durable(self, partition: int, offset: int) -> None:
        """The store must not outlive what it was made from."""
        if self.broker.fsync != "never":
            self.broker.topic(self.topic).log(partition).sync_to(offset)

    def _expire(self, interval_s: float) -> bool:
        """Forget what is past its retention, unless that was done lately."""
        now = self.clock.monotonic()
        if 0 <= now - self._expired < interval_s:
            return False
        self._expired = now
        self._store.expire(self.clock.time_ms() - self.retention_ms)
        return True

    def _publish(self, event: Event, key: str, message_id: str, correlation_id: str) -> str:
        if self.bus is None:
            raise InvalidArgumentError("these sagas have no bus to publish on: events.Sagas(broker, bus=...)")
        self.bus.publish(event, key=key, message_id=message_id, correlation_id=correlation_id)
        return message_id

    @property
    def partitions(self) -> int:
        """Into how many parts processes share the work."""
        self._check_open()
        return self.broker.topic(self.topic).partitions

    def __repr__(self) -> str:
        return f"<penstock.events.Sagas {self.topic!r}>"


def _checked_id(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidTypeError(f"{name} is {value!r}; a str is needed")
    if not 1 <= len(value) <= ID_MAX:
        raise InvalidArgumentError(f"{name} has {len(value)} characters; allowed are 1 to {ID_MAX}")
    check_unicode(name, value)
    return value if type(value) is str else str.__str__(value)
