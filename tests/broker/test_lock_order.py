"""Locks are taken in the order of docs/architecture.md: every lock of every layer is watched while all of them work."""

from __future__ import annotations

import _thread
import contextlib
import linecache
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import TopicPartition, VirtualClock, events
from penstock.storage.directory import FileLock, SharedLock
from penstock.storage.partition_log import PartitionLog
from penstock.storage.transaction_record import TransactionRecord

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"
ATTRIBUTE = re.compile(r"self\.(\w+)\b.*= ")


def documented() -> dict[str, int]:
    """Each lock's row in the table; a lock may be taken while one of an earlier row (or of its own) is held."""
    section = ARCHITECTURE.read_text(encoding="utf-8").split("## Lock order", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| \d+ \| (.*?) \|", section, re.MULTILINE)
    return {name: place for place, row in enumerate(rows) for name in re.findall(r"`([^`]+)`", row)}


class Watch:
    """Who holds what, by thread, and which lock was waited for while which one was held."""

    def __init__(self) -> None:
        self.pairs: set[tuple[str, str]] = set()
        self._held = threading.local()

    def took(self, name: str, lock: object) -> None:
        """Taken; again by its holder is no news."""
        held = self._held.__dict__.setdefault("list", [])
        if all(other is not lock for _, other in held):
            self.pairs.update((before, name) for before, _ in held)
        held.append((name, lock))

    def gave(self, lock: object) -> None:
        """Given back, once."""
        held = self._held.__dict__.setdefault("list", [])
        for place in reversed(range(len(held))):
            if held[place][1] is lock:
                del held[place]
                return


class WatchedLock:
    """A lock between threads, known by the attribute that it was made for."""

    def __init__(self, lock: Any, name: str, watch: Watch) -> None:
        self._lock, self._name, self._watch = lock, name, watch

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken: bool = self._lock.acquire(blocking, timeout)
        if taken:
            self._watch.took(self._name, self)
        return taken

    def release(self) -> None:
        self._watch.gave(self)
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def watching(make: Callable[[], Any], watch: Watch) -> Callable[[], Any]:
    """Instead of `threading.Lock` or `RLock`: watched where it becomes an attribute of one of ours."""

    def made() -> Any:
        frame = sys._getframe(1)
        found = ATTRIBUTE.search(linecache.getline(frame.f_code.co_filename, frame.f_lineno))
        if found is None or not frame.f_globals.get("__name__", "").startswith("penstock."):
            return make()
        owner = frame.f_code.co_qualname.split(".")[0]
        return make() if owner == "SharedLock" else WatchedLock(make(), f"{owner}.{found[1]}", watch)

    return made


def watch_methods(
    patch: pytest.MonkeyPatch, kind: type, enter: str, leave: str, name: Callable[[Any], str], watch: Watch
) -> None:
    """Watch what a pair of methods takes and gives back."""
    take, give = getattr(kind, enter), getattr(kind, leave)

    def entered(self: Any, *given: Any) -> Any:
        result = take(self, *given)
        watch.took(name(self), self)
        return result

    def left(self: Any, *given: Any) -> Any:
        watch.gave(self)
        return give(self, *given)

    patch.setattr(kind, enter, entered)
    patch.setattr(kind, leave, left)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    found = Watch()
    monkeypatch.setattr(threading, "Lock", watching(_thread.allocate_lock, found))
    monkeypatch.setattr(threading, "RLock", watching(threading.RLock, found))
    watch_methods(monkeypatch, FileLock, "__enter__", "release", lambda lock: str(lock._path.name), found)
    watch_methods(monkeypatch, SharedLock, "__enter__", "__exit__", lambda lock: str(lock._path.name), found)
    watch_methods(monkeypatch, PartitionLog, "_lock", "_unlock", lambda log: "writer lock", found)
    lock_record = TransactionRecord.lock

    @contextlib.contextmanager
    def locked(record: TransactionRecord) -> Iterator[None]:
        with lock_record(record):
            found.took("TransactionRecord.lock", record)
            yield
            found.gave(record)

    monkeypatch.setattr(TransactionRecord, "lock", locked)
    return found


class LockOrderMade(events.Event):
    number: int


class Numbers(events.Projection):
    """Keeps the numbers in a table."""

    @events.applies(LockOrderMade)
    def made(self, database: Any, event: LockOrderMade) -> None:
        database.execute("INSERT INTO numbers VALUES (?)", (event.number,))

    def setup(self, database: Any) -> None:
        database.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER)")


def work_with_streams(broker: penstock.Broker) -> None:
    broker.create_topic("in", partitions=2).append(b"v", partition=0)
    broker.alter_topic("in", partitions=3)
    broker.create_topic("out")
    with (
        broker.consumer("in", group="g", enable_auto_commit=False) as consumer,
        broker.producer(transactional_id="t") as producer,
    ):
        assert consumer.poll(timeout=1)
        producer.begin_transaction()
        producer.send("out", b"v")
        producer.send_offsets(consumer)
        producer.commit_transaction()
        producer.begin_transaction()
        producer.send("out", b"v")
        producer.flush()
        producer.abort_transaction()
    broker.delete_records(TopicPartition("in", 0), 1)
    broker.metrics()
    broker.delete_topic("in")


def work_with_queues(broker: penstock.Broker) -> None:
    queue = broker.queue("jobs", max_length=2, dead_letter="dead", max_receives=1, deduplication_window=60)
    for number in range(3):
        queue.send(b"v", deduplication_id=f"m{number}")
    for message in queue.receive(2, wait=0):
        message.reject()
    broker.queue("limited", max_in_flight=1).send(b"v")
    assert broker.queue("limited").receive(2, wait=0)
    exchange = broker.exchange("x", "topic")
    exchange.bind("jobs", "a.#")
    exchange.publish(b"v", "a.b")
    broker.metrics()
    broker.delete_queue("limited")


def work_with_events(broker: penstock.Broker, path: Path) -> None:
    store = events.EventStore(broker, "facts")
    store.append("s-1", [LockOrderMade(number=1)])
    with events.Projector(store, Numbers(), path / "numbers.db") as projector:
        assert projector.run_once() == 1
    seen: list[events.Event] = []
    with events.EventBus(broker, "bus") as bus:
        bus.on(LockOrderMade)(lambda event: seen.append(event))
        bus.publish(LockOrderMade(number=2))
        bus.run_until_idle()
    assert len(seen) == 1


def test_locks_are_taken_in_the_documented_order(tmp_path: Path, watch: Watch) -> None:
    order = documented()
    with penstock.open(tmp_path / "data", clock=VirtualClock()) as broker:
        work_with_streams(broker)
        work_with_queues(broker)
        work_with_events(broker, tmp_path)
    names = {name for pair in watch.pairs for name in pair}
    assert sorted(names - set(order)) == [], "locks that the table does not have"
    assert [pair for pair in sorted(watch.pairs) if order[pair[0]] > order[pair[1]]] == []
    assert {("Broker._queue_lock", "queues.lock"), ("queues.lock", "topics.lock")} <= watch.pairs
