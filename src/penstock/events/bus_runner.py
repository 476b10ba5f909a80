"""Running the handlers of a bus: threads, a graceful stop, keeping what is in hand, working until nothing is left."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable
from typing import Self

from penstock import Broker, ClosedError, CorruptionError, PenstockError
from penstock.errors import InvalidArgumentError, InvalidConfigError, WaitTimeoutError
from penstock.events.bus_group import Group
from penstock.events.bus_loop import HandlerLoop
from penstock.events.checks import checked_list
from penstock.events.guard import checked_number
from penstock.stopping import StopFlag, stopped_by_signals
from penstock.storage.forks import closes_in_child

_log = logging.getLogger("penstock.bus")
_WAIT_S = 1.0
_BACK_OFF_S = 0.5


class Runner:
    """The half of `EventBus` that runs."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._groups: dict[str, Group] = {}
        self._loop = HandlerLoop()
        self._lock = threading.RLock()
        self._stopped = StopFlag()
        self._stopped.set()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._closed = False
        closes_in_child(self)

    def leave_parent(self, idle: bool) -> None:
        """In the child of a fork, where none of the threads is: the bus stands still, and may be started."""
        self._lock = threading.RLock()
        self._stopped = StopFlag()
        self._stopped.set()
        self._threads, self._failure = [], None
        self._loop.leave_parent()
        for group in self._groups.values():
            group.leave_parent()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the event bus was closed")
        self.broker._check_open()

    @property
    def groups(self) -> list[str]:
        """Names of the groups that have handlers here."""
        return sorted(self._groups)

    # --- running ---------------------------------------------------------------------------------------------------

    def start(self, workers: int = 1, groups: Iterable[str] | None = None) -> Self:
        """Handle events in the background, with so many threads for each group (default: all); `stop` ends it."""
        checked_number("workers", workers, 1, 1000, whole=True)
        with self._lock:
            self._check_open()
            if self._threads:
                raise InvalidConfigError("the bus runs already; stop it first")
            names = list(self._groups) if groups is None else checked_list("groups", groups)
            chosen = [self._group(name) for name in names]
            self._failure = None
            self._stopped.clear()
            self._threads = [
                threading.Thread(target=self._guarded, args=(group,), name=f"penstock-bus-{group.name}", daemon=True)
                for group in chosen
                for _ in range(workers if group.settings["copies"] == "group" else 1)
            ]
            self._threads.append(threading.Thread(target=self._keep, name="penstock-bus-keeper", daemon=True))
            for thread in self._threads:
                thread.start()
        return self

    def run(self, workers: int = 1, groups: Iterable[str] | None = None) -> None:
        """Handle events until `stop`; in the main thread also until SIGTERM or SIGINT. Handlers that run are finished,
        what else was fetched is given back; a second signal does not wait for that. Raises what ended a worker, such as
        a `SystemExit` of a handler.
        """
        with stopped_by_signals(self._ask_to_stop) as signalled:
            self.start(workers, groups)
            if signalled.is_set():
                self._ask_to_stop()
            try:
                self.join()
            except BaseException:  # a second SIGINT
                self._abandon()
                raise
            self.stop()

    def _abandon(self) -> None:
        """Ask for the end, and wait for nobody."""
        self._ask_to_stop()
        self._threads = []
        self._loop.stop(wait=False)

    async def serve(self, workers: int = 1, groups: Iterable[str] | None = None) -> None:
        """`run` for asyncio: async handlers run in this loop. Cancelling it stops the bus gracefully."""
        self._check_open()
        loop = asyncio.get_running_loop()
        self._loop.use(loop)
        try:
            self.start(workers, groups)
            while any(thread.is_alive() for thread in self._threads):
                await asyncio.sleep(0.05)
        finally:
            self._ask_to_stop()
            while any(thread.is_alive() for thread in self._threads):
                await asyncio.sleep(0.01)
            self._loop.use(None)
            self.stop()

    def stop(self) -> None:
        """Finish the handlers that run, give back what else was fetched, and wait for that (in a handler: ask for it).
        May be repeated."""
        self._ask_to_stop()
        if self._loop.is_current or threading.current_thread() in self._threads:
            return
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._threads = []
        self._loop.stop()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def join(self, timeout: float | None = None) -> None:
        """Wait until the bus was stopped, or for `timeout` seconds."""
        for thread in self._threads:
            while timeout is None and thread.is_alive():
                thread.join(0.2)  # in slices: a signal handler runs between them
            thread.join(timeout)

    def _ask_to_stop(self) -> None:
        self._stopped.set()
        for group in list(self._groups.values()):
            group.source.wakeup()

    def _group(self, name: str) -> Group:
        if not isinstance(name, str) or name not in self._groups:
            raise InvalidArgumentError(f"group is {name!r}; groups with handlers here: {self.groups}")
        return self._groups[name]

    def _guarded(self, group: Group) -> None:
        try:
            while not self._stopped.is_set():
                self._step(group)
        except ClosedError:
            _log.info("the broker was closed under group %s", group.name)
        except BaseException as error:
            self._failure = error
            _log.exception("a worker of group %s ends the bus", group.name)
            self._ask_to_stop()

    def _step(self, group: Group) -> None:
        try:
            if group.work(_WAIT_S, self._stopped.is_set) is None:
                self._pause(group.pause_s())
        except ClosedError:
            raise
        except CorruptionError:
            _log.exception("an event of group %s cannot be read and is left out", group.name)
        except (PenstockError, OSError):
            _log.exception("group %s goes on in %s s", group.name, _BACK_OFF_S)
            self._stopped.wait(_BACK_OFF_S)

    def _pause(self, seconds: float) -> None:
        clock = self.broker.clock
        until = clock.monotonic() + seconds
        while (left := until - clock.monotonic()) > 0 and not self._stopped.wait(min(left, 0.05)):
            pass

    def _keep(self) -> None:
        """Extend the time-outs of what is in hand, three times in each."""
        clock = self.broker.clock
        groups = list(self._groups.values())
        every = min((group.settings["visibility_timeout"] for group in groups), default=30.0) / 3
        renewed = clock.monotonic()
        while not self._stopped.wait(min(0.2, every / 2)) or any(group.busy for group in groups):
            if self._stopped.is_set():
                time.sleep(min(0.05, every / 2))
            if clock.monotonic() - renewed >= every:
                renewed = clock.monotonic()
                for group in groups:
                    try:
                        group.keep()
                    except PenstockError:
                        _log.exception("what group %s has in hand could not be kept", group.name)

    # --- until there is nothing left -------------------------------------------------------------------------------

    def run_until_idle(self, max_events: int | None = None) -> int:
        """Handle what is ready now, in this thread, and what that leads to; how many events were delivered (at the most
        `max_events`).

        Retries that are not due yet are left: advance the clock and call again. Meant for tests and scripts.
        """
        self._check_open()
        if max_events is not None:
            checked_number("max_events", max_events, 0, 1 << 62, whole=True)
        done, idle = 0, False
        while not idle and (max_events is None or done < max_events):
            idle = True
            for group in list(self._groups.values()):
                while found := group.work(0.0, lambda: False, None if max_events is None else max_events - done):
                    done, idle = done + found, False
        return done

    def drain(self, timeout: float = 30.0) -> int:
        """Handle events, beside the bus's own threads, until each is settled or dead, retries included; how many this
        thread handled. What other processes have in hand does not count. `WaitTimeoutError` when some are left after
        `timeout` seconds of the broker's clock.
        """
        self._check_open()
        deadline, done = self.broker.clock.monotonic() + checked_number("timeout", timeout, 0, 1e12), 0
        groups = list(self._groups.values())
        for group in groups:
            group.drained_by += 1
            group.source.wakeup()
        try:
            while True:
                done += self.run_until_idle()
                left = [group.name for group in groups if group.unsettled]
                if not left:
                    return done
                if self.broker.clock.monotonic() >= deadline:
                    raise WaitTimeoutError(f"after {timeout} s groups {left} still have events")
                time.sleep(0.002)
        finally:
            for group in groups:
                group.drained_by -= 1
