"""A partition of sagas in the hands of its owner: their states, their timers, and the only right to journal.

The right is that of a producer with the partition's name: taking it fences the former owner under the lock of the log,
so that nothing of it can come late. An entry is applied once it is stored, so memory never knows more than the log.
"""

from __future__ import annotations

import heapq
import logging
import math
import secrets
import threading
from typing import TYPE_CHECKING

import msgspec

import penstock
from penstock.errors import FencedError, PenstockError, RecordTooLargeError
from penstock.events.errors import UNREADABLE
from penstock.events.sagas.entry import NULL, Entry, decode_record, encode
from penstock.events.sagas.errors import JournalBroken
from penstock.events.sagas.state import PENDING, SagaState, apply, encode_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.events.sagas.sagas import Sagas

_log = logging.getLogger("penstock.sagas")
Failure = tuple[str, str, str]  # step, reason, type of the error
Timer = tuple[int, int]  # the time for which a saga waits, and when that was decided: wall-clock milliseconds
_NONE: Failure = ("", "", "")


class Task:
    """A saga in memory. `active`: somebody runs it; `woken`: something came meanwhile; `queued`: it will be run."""

    __slots__ = ("active", "partition", "queued", "state", "woken")

    def __init__(self, partition: OwnedPartition, state: SagaState) -> None:
        self.partition = partition
        self.state = state
        self.active = self.queued = self.woken = False


class OwnedPartition:
    """Made when the group assigns the partition. `receive` and `checkpoint` by one thread, `journal` by any."""

    def __init__(self, sagas: Sagas, number: int) -> None:
        self.number = number
        self.token = secrets.token_hex(4)
        self.stopping = False
        self.clock = sagas.clock
        self.caller = sagas._caller
        self.publish = sagas._publish
        self.source = sagas.topic
        self.tasks: dict[str, Task] = {}
        self.dirty: dict[str, Task] = {}
        self._timers: list[tuple[Timer, str]] = []  # by the wall clock
        self._elapsing: list[tuple[float, Timer, str]] = []  # the same ones, by the time that passes
        self._waits = sagas._waits.setdefault(number, {})  # what each saga waits for, also of an earlier ownership
        self.position = 0
        self._live = False
        self._lock = threading.Lock()  # states change under it
        self._storing: dict[str, int] = {}  # by saga: entries from this offset on may be stored and not yet applied
        self._sagas = sagas
        self._topic = sagas.topic
        self._store = sagas._store
        self._own = b'{"by":"' + self.token.encode()
        # nothing of the former owner comes after this line
        self._producer = sagas.broker.producer(name=f"{sagas.topic}/{number}", linger_ms=0)
        self._send = self._producer.send

    # --- opening ---------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read what is known: the rows of the last checkpoint, and the log from there."""
        start = self._sagas._checkpoint(self.number)
        for state in self._store.unfinished(self.number):
            self._remember(state)
        self.position = start
        with self._sagas._reader(self.number, start) as reader:
            while batches := reader.poll_batches(timeout=0):
                for batch in batches:
                    self.receive(batch)
            self.position = max(self.position, reader.position(penstock.TopicPartition(self._topic, self.number)))
        for saga_id in self._waits.keys() - self.tasks.keys():
            del self._waits[saga_id]
        self._live = True

    def _remember(self, state: SagaState) -> Task:
        task = self.tasks[state.id] = Task(self, state)
        return task

    # --- what comes from the log -----------------------------------------------------------------------------------

    def receive(self, batch: penstock.RecordBatch) -> list[Task]:
        """Apply records; the sagas that they concern. Raises `FencedError` when another owner has written here."""
        own = self._own
        fresh: list[tuple[str, int, Entry]] = []
        for offset, key, value in zip(batch.offsets.tolist(), batch.keys(), batch.values(), strict=True):
            if value is None or value.startswith(own):
                continue
            found = _decoded(self._topic, self.number, offset, key, value)
            if found is not None:
                fresh.append((found[0], offset, found[1]))
        touched = self._apply(fresh) if fresh else []
        self.position = batch.last_offset + 1
        return touched

    def _apply(self, entries: list[tuple[str, int, Entry]]) -> list[Task]:
        tasks = self.tasks
        unknown = [saga_id for saga_id, _, _ in entries if saga_id not in tasks]
        finished = self._store.known(unknown) if unknown else set()
        touched: dict[str, Task] = {}
        over: dict[str, Task] = {}
        for saga_id, offset, entry in entries:
            if self._live and entry.seq:
                raise FencedError(f"{self._topic}-{self.number} has entries of another owner at offset {offset}")
            task = tasks.get(saga_id) or over.get(saga_id)
            if task is None:
                state = self._store.load(saga_id) if saga_id in finished else None
                if state is not None and entry.kind == "start":
                    continue  # it was started before, and is over
                task = self._remember(state or SagaState(saga_id, offset))
            with self._lock:
                if apply(task.state, entry, offset):
                    touched[saga_id] = self.dirty[saga_id] = tasks[saga_id] = task
                elif task.state.finished and saga_id not in self.dirty:
                    over[saga_id] = task
                    tasks.pop(saga_id, None)
        return list(touched.values())

    # --- the journal -----------------------------------------------------------------------------------------------

    def journal(self, task: Task, entry: Entry) -> None:
        """Store an entry, then apply it. Raises `JournalBroken`, `RecordTooLargeError`; nothing is stored or applied
        then."""
        state = task.state
        saga_id = state.id
        entry.by = self.token
        entry.seq = state.seq + 1
        self._storing[saga_id] = self.position  # a checkpoint that misses it has read no further than what comes now
        try:
            self._send(self._topic, encode(entry), saga_id.encode(), None, entry.at, self.number)
        except (PenstockError, OSError) as error:
            if not self._producer.closed:
                self._producer.purge()  # or it would be stored by the next one, which has the same number
            self.stopping = self.stopping or isinstance(error, FencedError)
            del self._storing[saga_id]
            if isinstance(error, RecordTooLargeError):
                raise  # another try ends the same way
            raise JournalBroken(error) from error
        with self._lock:
            apply(state, entry, -1)
            self.dirty[saga_id] = task
            del self._storing[saga_id]

    def end(self, task: Task, status: str, value: msgspec.Raw = NULL, failure: Failure = _NONE) -> None:
        """The saga is in its last state."""
        entry = Entry(kind="end", at=self.clock.time_ms(), status=status, value=value)
        entry.name, entry.error, entry.error_type = failure
        self.journal(task, entry)

    # --- timers ----------------------------------------------------------------------------------------------------

    def set_timer(self, task: Task, timer: Timer) -> None:
        """Wake the saga at a time of the wall clock, or when as much time has passed as that lies behind when it was
        decided: a clock that goes back delays nothing, and in another process by no more than the wait itself."""
        saga_id = task.state.id
        known, elapsed_s = self._waits.get(saga_id, (None, 0.0))
        if known != timer:
            left_s = (timer[0] - max(timer[1], self.clock.time_ms())) / 1000
            elapsed_s = self.clock.monotonic() + left_s
            self._waits[saga_id] = timer, elapsed_s
        heapq.heappush(self._timers, (timer, saga_id))
        heapq.heappush(self._elapsing, (elapsed_s, timer, saga_id))

    def is_due(self, task: Task, entry: Entry) -> bool:
        """Whether the time has come for which the saga waits by this entry."""
        if entry.due <= self.clock.time_ms():
            return True
        timer, elapsed_s = self._waits.get(task.state.id, (None, 0.0))
        return timer == (entry.due, entry.at) and elapsed_s <= self.clock.monotonic()

    def until_due(self) -> float:
        """Seconds until `due` may have something."""
        left_s = math.inf
        if self._timers:
            left_s = (self._timers[0][0][0] - self.clock.time_ms()) / 1000
        if self._elapsing:
            left_s = min(left_s, self._elapsing[0][0] - self.clock.monotonic())
        return left_s

    def due(self) -> list[Task]:
        """The sagas whose time has come."""
        now_ms, now_s = self.clock.time_ms(), self.clock.monotonic()
        passed: list[tuple[Timer, str]] = []
        while self._timers and self._timers[0][0][0] <= now_ms:
            passed.append(heapq.heappop(self._timers))
        while self._elapsing and self._elapsing[0][0] <= now_s:
            passed.append(heapq.heappop(self._elapsing)[1:])
        found: dict[str, Task] = {}
        for timer, saga_id in passed:
            task = self.tasks.get(saga_id)
            if task is not None and self._waits.get(saga_id, (None, 0.0))[0] == timer:
                self._waits[saga_id] = timer, -math.inf  # it has come, wherever the wall clock goes now
                found[saga_id] = task
        return list(found.values())

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def checkpoint(self) -> bool:
        """Write what changed to the store, and forget what is over; False when there was nothing.

        Sagas run on meanwhile. A row may hold more than the checkpoint says: entries that are read again are known by
        their numbers.
        """
        with self._lock:
            if not self.dirty:
                return False
            dirty, self.dirty = self.dirty, {}
            offset = min(self.position, *self._storing.values(), self.position)
            states = [_copied(task.state) for task in dirty.values()]
        try:
            self._sagas._make_durable(self.number, self.position)
            self._store.write(self.number, offset, states)
        except BaseException:
            with self._lock:
                self.dirty = {**dirty, **self.dirty}
            raise
        with self._lock:
            for saga_id, task in dirty.items():
                if task.state.finished and not task.active and saga_id not in self.dirty:
                    self.tasks.pop(saga_id, None)
                    self._waits.pop(saga_id, None)
        return True

    def trim(self, retention_ms: int, is_idle: Callable[[Task], bool]) -> None:
        """Let go of log that nobody needs: older than the retention, and of no saga that is not over.

        Sagas that outlive the retention are journaled as a whole first. `is_idle`: no worker has the saga, or will
        before this returns; the log of the others stays.
        """
        log = self._sagas.broker.topic(self._topic).log(self.number)
        old = log.offset_for_timestamp(max(0, self.clock.time_ms() - retention_ms))
        horizon = min(self.position, log.log_end_offset if old is None else old[0])
        for task in list(self.tasks.values()):
            state = task.state
            if state.first < horizon and not state.finished and state.status != PENDING:
                if not is_idle(task):
                    horizon = state.first
                    continue
                value = msgspec.Raw(encode_state(state))
                entry = Entry(kind="snapshot", at=state.updated, value=value)
                try:
                    self.journal(task, entry)
                    state.first = self.position
                except RecordTooLargeError as error:
                    horizon = state.first
                    _log.warning("saga %s is too large to be journaled as a whole; the log stays: %s", state.id, error)
        if horizon > log.log_start_offset:
            self._sagas.broker.delete_records(penstock.TopicPartition(self._topic, self.number), horizon)

    def release(self) -> None:
        """Give up the right to journal."""
        self.stopping = True
        self._producer.purge()
        self._producer.close()


def _copied(state: SagaState) -> SagaState:
    """The state as it is now; one that is over does not change while it is written."""
    if state.finished:
        return state
    values = {name: getattr(state, name) for name in SagaState.__struct_fields__}
    return SagaState(**{**values, "ops": state.ops.copy()})


def _decoded(topic: str, partition: int, offset: int, key: bytes | None, value: bytes) -> tuple[str, Entry] | None:
    try:
        return decode_record(key, value)
    except UNREADABLE:
        _log.exception("%s-%d offset %d is no entry of sagas, and is left out", topic, partition, offset)
        return None
