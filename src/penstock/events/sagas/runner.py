"""Owns partitions of sagas and runs them: one driving thread that reads the log, and workers that run sagas.

The driver is a member of the consumer group of the topic, so a partition has one owner, a dead owner's partitions move
within a fraction of a second, and a late one is fenced (see `partition`). A saga is run by one worker at a time.

Workers are woken one by one: another one only when sagas are ready and none was finished with for a tick, as happens
when steps wait for something. So steps that only compute do not fight for the interpreter, and steps that wait overlap.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import penstock
from penstock.errors import ClosedError, DiskFullError, FencedError, PenstockError
from penstock.events.sagas.errors import JournalBroken
from penstock.events.sagas.execution import execute
from penstock.events.sagas.partition import OwnedPartition, Task
from penstock.events.sagas.state import COMPENSATING, RUNNING, WAITING
from penstock.stopping import StopFlag

if TYPE_CHECKING:
    from penstock.events.sagas.sagas import Sagas

_log = logging.getLogger("penstock.sagas")
TICK_S = 0.005
IDLE_S = 0.2
FULL_S = 1.0
CHECKPOINT_S = 1.0
CHECKPOINT_SAGAS = 5_000
TRIM_S = 60.0
TAKE_OVER_S = 2.0
LAST_READS = 20
READY_MAX = 20_000
REVOKE_S = 10.0


class Runner:
    """One membership in the group. `run_until_idle` in the caller's thread, or `start`, `stop` and `join`."""

    def __init__(self, sagas: Sagas) -> None:
        self._sagas = sagas
        self._clock = sagas.clock
        self.partitions: dict[int, OwnedPartition] = {}
        self._ready: deque[Task] = deque()
        self._lock = threading.Condition(threading.Lock())
        self._awake = 0
        self._active = 0
        self._finished = 0
        self._stopped = StopFlag()
        self._over = False
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._checkpointed = self._clock.monotonic()
        self._consumer = sagas.broker.consumer(
            sagas.topic,
            group=sagas.topic,
            enable_auto_commit=False,
            client_id="sagas",
            on_assigned=self._assigned,
            on_revoked=self._revoked,
            on_lost=self._lost,
        )

    # --- ownership -------------------------------------------------------------------------------------------------

    def _assigned(self, places: list[penstock.TopicPartition]) -> None:
        for place in places:
            owned = OwnedPartition(self._sagas, place.partition)
            owned.load()
            self.partitions[place.partition] = owned
            self._consumer.seek(place, owned.position)
            self._wake(list(owned.tasks.values()))

    def _revoked(self, places: list[penstock.TopicPartition]) -> None:
        going = [self.partitions.pop(place.partition) for place in places if place.partition in self.partitions]
        for owned in going:
            owned.stopping = True
        with self._lock:
            self._ready = deque(task for task in self._ready if not task.partition.stopping)
            self._lock.wait_for(lambda: not any(_busy(owned) for owned in going), REVOKE_S)
        for owned in going:
            try:
                owned.checkpoint()
            except FencedError as error:
                _log.info("%s-%d has another owner already: %s", self._sagas.topic, owned.number, error)
            except DiskFullError as error:  # the next owner reads more of the log
                _log.error("no room for the last checkpoint of %s-%d: %s", self._sagas.topic, owned.number, error)
            owned.release()

    def _lost(self, places: list[penstock.TopicPartition]) -> None:
        for place in places:
            owned = self.partitions.pop(place.partition, None)
            if owned is not None:
                owned.release()

    # --- driving ---------------------------------------------------------------------------------------------------

    def _receive(self, timeout: float) -> bool:
        """Apply what came in the log; whether anything did."""
        batches = self._consumer.poll_batches(timeout=timeout)
        for batch in batches:
            owned = self.partitions.get(batch.partition)
            if owned is None or (owned.stopping and not self._over):
                continue
            try:
                self._wake(owned.receive(batch))
            except FencedError as error:
                _log.warning("%s", error)
                owned.stopping = True
        for owned in self.partitions.values():
            if owned.until_due() <= 0:
                self._wake(owned.due())
        return bool(batches)

    def _wake(self, tasks: list[Task]) -> None:
        """Have these sagas run, those that are running once more."""
        with self._lock:
            for task in tasks:
                if task.active:
                    task.woken = True
                elif not task.queued and task.state.status in (RUNNING, WAITING, COMPENSATING):
                    task.queued = True
                    self._ready.append(task)
            if self._ready and not self._awake:
                self._lock.notify()

    def wake_all_of(self, definition: str) -> None:
        """Have the sagas of a definition run, which may have been left for want of it. Any thread."""
        owned = list(self.partitions.values())
        self._wake([task for one in owned for task in list(one.tasks.values()) if task.state.definition == definition])

    def _keep(self) -> None:
        """Checkpoints, and what is past its retention."""
        now = self._clock.monotonic()
        waiting = sum(len(owned.dirty) for owned in self.partitions.values())
        if waiting >= CHECKPOINT_SAGAS or (waiting and not 0 <= now - self._checkpointed < CHECKPOINT_S):
            self.checkpoint()
        if self._sagas._expire(TRIM_S):
            for owned in list(self.partitions.values()):
                owned.trim(self._sagas.retention_ms, self._is_idle)

    def _is_idle(self, task: Task) -> bool:
        """Whether no worker has a saga, or will before the driver wakes it."""
        with self._lock:
            return not (task.active or task.queued)

    def checkpoint(self) -> None:
        """Write every partition's."""
        offsets = {}
        for owned in list(self.partitions.values()):
            if owned.checkpoint():
                offsets[penstock.TopicPartition(self._sagas.topic, owned.number)] = owned.position
        self._checkpointed = self._clock.monotonic()
        try:
            if offsets:
                self._consumer.commit(offsets)  # for those who look at the group's lag; nothing reads it
        except FencedError as error:
            _log.info("%s", error)

    def _timeout(self) -> float:
        """Until the next timer."""
        return max(0.0, min([IDLE_S, *(owned.until_due() for owned in self.partitions.values())]))

    # --- running sagas ---------------------------------------------------------------------------------------------

    def _run(self, task: Task) -> None:
        """Run a saga that was taken from the ready ones."""
        again: tuple[int, int] | None = None
        try:
            again = execute(task, self._sagas._definitions.get(task.state.definition))
        finally:
            with self._lock:
                task.active = False
                self._active -= 1
                self._finished += 1
                if task.woken and not task.partition.stopping:
                    task.woken = False
                    task.queued = True
                    self._ready.append(task)
                elif again is not None:
                    task.partition.set_timer(task, again)
                if task.partition.stopping:
                    self._lock.notify_all()
            if task.state.finished:
                self._sagas._tell_waiting(task.state.id)

    def _take(self) -> Task | None:
        """The next ready saga, or None. The lock is held."""
        while self._ready:
            task = self._ready.popleft()
            task.queued = False
            if not task.partition.stopping:
                task.active = True
                self._active += 1
                return task
        return None

    def run_until_idle(self) -> int:
        """Run everything that can run now, in this thread; how many times a saga was run."""
        runs = 0
        settled = time.monotonic() + TAKE_OVER_S
        try:
            self._consumer.assignment()
            while True:
                came, before = self._receive(0), runs
                if len(self.partitions) < self._sagas.partitions and time.monotonic() < settled:
                    time.sleep(TICK_S)  # somebody who died still has the others
                    continue
                while True:
                    with self._lock:
                        task = self._take()
                    if task is None:
                        break
                    self._run(task)
                    runs += 1
                if not came and runs == before and not self._timer_is_due():
                    self._keep()
                    return runs
        finally:
            self.close()

    def _timer_is_due(self) -> bool:
        return any(owned.until_due() <= 0 for owned in self.partitions.values())

    # --- threads ---------------------------------------------------------------------------------------------------

    def start(self, workers: int) -> None:
        """Begin, with so many sagas at once."""
        for number in range(workers):
            thread = threading.Thread(target=self._work, name=f"penstock-saga-{number}", daemon=True)
            self._threads.append(thread)
        driver = threading.Thread(target=self._drive, name="penstock-sagas", daemon=True)
        self._threads.append(driver)
        for thread in self._threads:
            thread.start()

    def _drive(self) -> None:
        try:
            finished = 0
            while not self._stopped.is_set():
                busy = bool(self._ready)
                if busy:
                    self._stopped.wait(TICK_S)
                    with self._lock:
                        if self._ready and finished == self._finished:
                            self._lock.notify()  # whoever is awake waits for something: one more
                        finished = self._finished
                try:
                    if len(self._ready) < READY_MAX:
                        self._receive(0 if busy else self._timeout())
                    self._keep()
                except (DiskFullError, JournalBroken) as error:
                    _log.error("sagas %s go on when there is room: %s", self._sagas.topic, error)
                    self._stopped.wait(FULL_S)
        except ClosedError:
            _log.info("the broker of sagas %s was closed", self._sagas.topic)
        except BaseException as error:
            self._failure = error
            _log.exception("running sagas %s ends", self._sagas.topic)
        finally:
            self._end()

    def _work(self) -> None:
        awake = False
        while True:
            with self._lock:
                while (task := self._take() if awake else None) is None:
                    if self._over:
                        return
                    self._awake -= awake
                    self._lock.wait()
                    self._awake += 1
                    awake = True
            try:
                self._run(task)
            except BaseException as error:
                self._failure = error
                _log.exception("a worker of sagas %s ends", self._sagas.topic)
                self._stopped.set()
                return

    def _end(self) -> None:
        """Finish the steps in hand, write the last checkpoint, leave the group."""
        self._stopped.set()
        for owned in self.partitions.values():
            owned.stopping = True
        with self._lock:
            self._over = True
            self._lock.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(REVOKE_S)
        try:
            for _ in range(LAST_READS):  # what was journaled last, so that the checkpoint covers it
                if self._failure is not None or self._consumer.closed or not self._receive(0):
                    break
            self.close()
        except PenstockError as error:
            self._failure = self._failure or error
            _log.exception("leaving sagas %s failed", self._sagas.topic)

    def close(self) -> None:
        """Write the last checkpoint and leave the group."""
        try:
            if not self._consumer.closed:
                self._consumer.close()  # gives the partitions up, as in a rebalance
        except PenstockError:
            self._consumer._abandon()  # the group is told when that can be written
            self._consumer.close()
            raise
        finally:
            for owned in self.partitions.values():
                owned.release()
            self.partitions = {}

    @property
    def is_current(self) -> bool:
        """Whether this is called in one of its threads, as a step may do; that cannot wait for the end."""
        return threading.current_thread() in self._threads

    def stop(self) -> None:
        """Ask for the end; from any thread or signal handler."""
        self._stopped.set()
        if not self._consumer.closed:
            self._consumer.wakeup()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end. Raises what ended it, if that was no stop."""
        for thread in self._threads:
            while timeout is None and thread.is_alive():
                thread.join(0.2)  # in slices: a signal handler runs between them
            thread.join(timeout)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


def _busy(owned: OwnedPartition) -> bool:
    return any(task.active for task in list(owned.tasks.values()))
