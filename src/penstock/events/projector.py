"""The projector: keeps a read model up to date, with its checkpoint in the same transaction as the effects.

Thread safety: `run` (or `start`) in one thread, everything else from any. Process safety: any number of projectors of
one projection over one database; each event has its effect once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from penstock.clock import SystemClock
from penstock.error_text import repr_of
from penstock.errors import ClosedError, InvalidConfigError, InvalidTypeError, WaitTimeoutError
from penstock.events.at_the_end import at_the_end
from penstock.events.checks import check_plain, checked_text, is_async
from penstock.events.errors import UnknownEventTypeError
from penstock.events.guard import checked_number
from penstock.events.projection import Apply, Projection, apply_of
from penstock.events.projector_feed import Position, feed_of
from penstock.events.projector_rebuild import rebuild_in_place, rebuild_memory, rebuild_sqlite
from penstock.events.projector_target import MemoryTarget, SqlTarget, target_of
from penstock.events.registry import registry
from penstock.events.retry import Retry
from penstock.stopping import StopFlag, stopped_by_signals
from penstock.storage.forks import closes_in_child, held

_log = logging.getLogger("penstock.projector")
_WAIT_S = 0.1
_LOOK_S = 0.005


class Lag(int):
    """How far a projection is behind: an int, of events (other records of the log count as well)."""

    seconds: float
    """Age of the next event to be applied, in seconds; 0.0 when there is none."""

    @property
    def events(self) -> int:
        """The same number."""
        return int(self)


class Projector:
    """Applies the events of `source`, an `EventStore` or an `EventBus`, to a projection.

    `database`: a path (SQLite is opened there), a `sqlite3` connection or another DB-API connection: each batch of
    events is one transaction, checkpoint included. Or a mapping, or None (the state is the projection's own): in
    memory, from the first event on each time. `batch_size`: events a transaction (default 1000). `retry`: what `run`
    does about exceptions (default: 5 attempts from 0.1 s); the events before the one that fails are
    committed. `name`: of the checkpoint (default: the projection's).
    """

    def __init__(
        self,
        source: Any,
        projection: Projection,
        database: Any = None,
        batch_size: int = 1000,
        retry: Retry | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(projection, Projection):
            raise InvalidTypeError(f"projection is {projection!r}; an object of a Projection class is needed")
        self.projection = projection
        for method in (projection.setup, projection.reset):
            check_plain(f"{method.__name__} of {type(projection).__name__}", method)
            if is_async(method):
                raise InvalidTypeError(f"{method!r} is async and would not be awaited")
        if name is not None:
            checked_text("name", name)
        self.name = name or projection.name or type(projection).__name__
        self._batch_size = checked_number("batch_size", batch_size, 1, 1_000_000, whole=True)
        if retry is not None and not isinstance(retry, Retry):
            raise InvalidTypeError(f"retry is {retry!r}; a penstock.events.Retry or None is needed")
        self._retry = retry or Retry(delay=0.1)
        self._feed = feed_of(source)
        self._feeding = held(threading.RLock())
        self._target = target_of(database, projection, self.name)
        self._appliers: dict[str, Apply | None] = {}
        self._text = self._target.checkpoint()
        self._moved = threading.Condition()
        self._stopped = StopFlag()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._running = False
        self._closed = False
        closes_in_child(self)

    def leave_parent(self, idle: bool) -> None:
        """In the child of a fork: nothing runs here, and no other thread holds anything."""
        self._thread, self._failure, self._running = None, None, False
        self._feeding = held(threading.RLock())
        self._moved = threading.Condition()
        self._stopped = StopFlag()

    @property
    def database(self) -> Any:
        """What the projection's methods get as `db`: the connection or mapping."""
        self._check_open()
        return self._target.db

    # --- applying --------------------------------------------------------------------------------------------------

    def run_once(self) -> int:
        """Apply everything that is stored now; how many events. Raises what a method of the projection raised, once
        the events before that one are committed.
        """
        self._check_open()
        done = 0
        while (count := self._step()) is not None:
            done += count
        return done

    def _step(self) -> int | None:
        """Apply one batch; None when there was nothing."""
        with self._feeding:
            before = self._text
            after = self._feed.start if before is None else self._feed.from_text(before)
            events, position = self._feed.read(after, self._batch_size)
            if before is not None and position == after:
                return None
            if isinstance(self._target, MemoryTarget):
                return self._in_memory(events, before, after, position)
            text = self._feed.to_text(position)
            try:
                stored = self._target.apply(events, self._apply, before, text)
            except Exception:
                if len(events) > 1:
                    return self._one_by_one(after)
                raise
            if not stored:  # another projector was faster
                text = self._target.checkpoint() or text
            self._move_to(text)
            return len(events) if stored else 0

    def _in_memory(self, events: list[Any], before: str | None, after: Position, position: Position) -> int:
        """Memory knows no rollback: the position moves by the event."""
        done = [0]

        def apply(db: Any, recorded: Any) -> None:
            self._apply(db, recorded)
            done[0] += 1

        text = self._feed.to_text(position)
        try:
            self._target.apply(events, apply, before, text)
        except BaseException:
            for event in events[: done[0]]:
                after = self._feed.after_event(after, event)
            text = self._feed.to_text(after)
            self._target.apply([], apply, before, text)
            raise
        finally:
            self._move_to(text)
        return len(events)

    def _one_by_one(self, after: Position) -> int:
        """Apply the events of a batch that failed each by itself, up to the one that fails."""
        size, self._batch_size = self._batch_size, 1
        done = 0
        try:
            for _ in range(size):
                count = self._step()
                if count is None:
                    break
                done += count
        finally:
            self._batch_size = size
        return done

    def _move_to(self, text: str) -> None:
        with self._moved:
            self._text = text
            self._moved.notify_all()

    def _apply(self, db: Any, recorded: Any) -> None:
        event_type = recorded.type
        try:
            apply = self._appliers[event_type]
        except KeyError:
            apply = self._find(self.projection, event_type)
            self._appliers[event_type] = apply
        if apply is not None:
            apply(db, recorded.event, recorded)

    def _find(self, projection: Projection, event_type: str) -> Apply | None:
        try:
            return apply_of(projection, registry.get(event_type))
        except UnknownEventTypeError:
            _log.debug("events of type %s are unknown and passed over", event_type)
            return None

    # --- running ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Apply events as they come until `stop`, or until the store or broker is closed; in the main thread also until
        SIGTERM or SIGINT. Raises what a method of the projection raised when the retries are used up.
        """
        self._check_open()
        self._stopped.clear()
        with stopped_by_signals(self._stopped.set):
            self._run()

    def _run(self) -> None:
        self._running = True
        try:
            self._loop()
        finally:
            self._running = False

    def _loop(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                if self._step() is None:
                    self._wait()
                failures = 0
            except Exception as error:
                if self._is_closed():
                    _log.info("projection %s ends: %s", self.name, error)
                    return
                failures += 1
                if self._retry.gives_up(error, failures):
                    raise
                delay = self._retry.delay_after(failures)
                _log.warning(
                    "projection %s failed (%d), again in %.1f s: %r", self.name, failures, delay, repr_of(error)
                )
                until = self._feed.clock.monotonic() + delay
                while (left := until - self._feed.clock.monotonic()) > 0 and not self._stopped.wait(min(left, 0.05)):
                    pass

    def _wait(self) -> None:
        text = self._text
        assert text is not None
        if type(self._feed.clock) is SystemClock:
            self._feed.wait(self._feed.from_text(text), _WAIT_S)
        else:  # a wait on another clock may not end
            self._stopped.wait(_LOOK_S)

    def start(self) -> Self:
        """`run` in a thread; `stop` ends it."""
        self._check_open()
        if self._thread is not None:
            raise InvalidConfigError("the projector runs already; stop it first")
        self._failure = None
        self._stopped.clear()  # here, or a `stop` before the thread runs would be lost
        self._thread = threading.Thread(target=self._guarded, name=f"penstock-projector-{self.name}", daemon=True)
        self._running = True
        self._thread.start()
        return self

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:
            _log.exception("projection %s stopped", self.name)
            self._failure = error

    def stop(self) -> None:
        """Stop after the batch in hand, and wait for that. Raises what ended the thread. May be repeated."""
        self._stopped.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    # --- where it is -----------------------------------------------------------------------------------------------

    @property
    def position(self) -> Any:
        """The position up to which the read model has everything, as the database says it now."""
        self._check_open()
        text = self._target.checkpoint()
        return self._feed.start if text is None else self._feed.from_text(text)

    def wait_for(self, position: Any = None, timeout: float = 1.0) -> bool:
        """Block until the read model has everything up to `position`: read your own writes. True, or
        `WaitTimeoutError` (a `TimeoutError`) after `timeout` seconds.

        `position`: an event store's (or what `append` returned); of a topic, the next offset of each partition; None:
        all that is stored now. Somebody has to run the projection, in this process or another.
        """
        self._check_open()
        wanted = self._head() if position is None else self._feed.checked(position)
        clock = self._feed.clock
        deadline = clock.monotonic() + checked_number("timeout", timeout, 0, 1e12)
        while True:
            at = self._here() if self._running else self.position
            if self._feed.covers(at, wanted):
                return True
            if clock.monotonic() >= deadline:
                raise WaitTimeoutError(f"projection {self.name} is at {at}, not at {wanted}, after {timeout} s")
            if self._running:
                with self._moved:
                    self._moved.wait(_LOOK_S)
            else:
                time.sleep(_LOOK_S)

    def _here(self) -> Position:
        text = self._text
        return self._feed.start if text is None else self._feed.from_text(text)

    def _head(self) -> Position:
        return self._feed.head()

    def lag(self) -> Lag:
        """How many events it is behind, and `.seconds`: how old the next one is."""
        at = self.position
        lag = Lag(max(0, self._feed.between(at, self._feed.head())))
        lag.seconds = 0.0
        if lag:
            following = self._feed.read(at, 1).events
            now_ms = self._feed.clock.time_ms()
            lag.seconds = max(0.0, (now_ms - following[0].timestamp_ms) / 1000) if following else 0.0
        return lag

    # --- rebuilding ------------------------------------------------------------------------------------------------

    def rebuild(self) -> Any:
        """Build the read model anew from the first event, beside the live one, and swap; the position it is at then.

        The live one stays readable, and may go on running here or elsewhere, until it is replaced in one step (see
        `projector_rebuild`). In SQLite the projection's tables are those that `setup` makes and those that its methods
        write to, and only these are replaced; rows that are only changed need a `reset`, else `InvalidConfigError`.
        """
        self._check_open()
        target = self._target
        with self._feeding:
            if isinstance(target, MemoryTarget):
                position = rebuild_memory(target, self.projection, self._feed, self._fill)
            elif isinstance(target, SqlTarget) and target.sql.is_sqlite:
                position = rebuild_sqlite(target, self.projection, self._feed, self._fill)
            else:
                assert isinstance(target, SqlTarget)
                position = rebuild_in_place(target, self.projection, self._feed, self._fill)
            self._appliers.clear()
            self._move_to(self._feed.to_text(position))
        return position

    def _fill(
        self, projection: Projection, database: Any, after: Position, check: Callable[[], None] = lambda: None
    ) -> Position:
        appliers: dict[str, Apply | None] = {}
        head = self._feed.head()
        while not self._feed.covers(after, head):
            events, position = self._feed.read(after, self._batch_size)
            for recorded in events:
                if recorded.type not in appliers:
                    appliers[recorded.type] = self._find(projection, recorded.type)
                apply = appliers[recorded.type]
                if apply is not None:
                    apply(database, recorded.event, recorded)
            check()
            if position == after:
                break
            after = position
        return after

    def _is_closed(self) -> bool:
        try:
            self._check_open()
        except ClosedError:
            return True
        return False

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"projector {self.name!r} was closed")
        self._feed.check_open()

    def close(self) -> None:
        """Stop, and close the database if the projector opened it; what else is called raises `ClosedError` then. May
        be repeated. Raises what ended the thread, once all is closed."""
        with at_the_end(close=self._let_go):
            self.stop()

    def _let_go(self) -> None:
        self._closed = True
        with at_the_end(close=self._target.close):
            self._feed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Projector {self.name!r}>"
