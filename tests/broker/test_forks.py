"""Forks of a process whose other threads are inside of locks and of SQLite."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import penstock
from penstock.storage import forks
from penstock.storage.directory import FileLock, SharedLock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
PATIENCE_S = 60


def forked(action: Callable[[], object]) -> int:
    """The child's pid; it exits with 0 after the action, and is killed when that takes too long."""
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(PATIENCE_S)
    try:
        action()
        os._exit(0)
    except BaseException:
        os._exit(1)


def status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("kind", [FileLock, SharedLock])
def test_a_file_lock_of_another_thread_does_not_live_on_in_the_child(
    tmp_path: Path, kind: type[FileLock] | type[SharedLock]
) -> None:
    path = tmp_path / "lock"
    taken, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with kind(path):
            taken.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    reader, writer = os.pipe()

    def take() -> None:
        os.close(writer)
        os.read(reader, 1)  # until the parent let go
        with FileLock(path):
            pass

    child = forked(take)
    let_go.set()
    thread.join()
    os.close(reader)
    with FileLock(path):  # the child lives, and does not hold it
        pass
    os.close(writer)
    assert status(child) == 0


def test_the_holder_of_a_lock_in_the_parent_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path) as lock:

        def in_child() -> None:
            lock.release()
            assert not FileLock(path).try_acquire()

        assert status(forked(in_child)) == 0
        assert not FileLock(path).try_acquire()


def test_a_fork_waits_for_a_lock_that_is_held_and_both_sides_have_it_free(tmp_path: Path) -> None:
    lock = forks.held(threading.RLock())
    taken = threading.Event()
    seen: list[str] = []

    def hold() -> None:
        with lock:
            taken.set()
            for _ in range(1000):
                seen.append("busy")
            seen.append("done")

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()

    def in_child() -> None:
        assert seen[-1] == "done"
        assert lock.acquire(timeout=PATIENCE_S)

    child = forked(in_child)
    assert lock.acquire(timeout=PATIENCE_S)
    lock.release()
    thread.join()
    assert status(child) == 0


def test_a_thread_that_waits_for_the_forking_one_does_not_stop_the_fork(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forks, "PATIENCE_S", 0.0)
    lock = forks.held(threading.RLock())
    taken, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    child = forked(lambda: None)
    let_go.set()
    thread.join()
    assert status(child) == 0
    assert "clean fork" in caplog.text


def test_what_a_child_writes_after_the_parent_closed_is_kept(tmp_path: Path) -> None:
    """SQLite removes its log with the last connection: the child's has to count."""
    broker = penstock.open(tmp_path)
    second = penstock.open(tmp_path)
    broker.queue("before")
    reader, writer = os.pipe()

    def in_child() -> None:
        os.close(writer)
        os.read(reader, 1)  # until the parent closed
        broker.create_topic("of-the-child")
        broker.queue("queue-of-the-child").send(b"m")
        broker.reset_offsets("group-of-the-child", "of-the-child", "latest")
        os._exit(0)  # as killed: nothing is closed

    child = forked(in_child)
    os.close(reader)
    broker.close()
    second.close()
    os.close(writer)
    assert status(child) == 0
    with penstock.open(tmp_path) as broker:
        assert broker.topics() == ["before", "of-the-child", "queue-of-the-child"]
        assert list(broker.queues()) == ["before", "queue-of-the-child"]
        assert broker.groups() == ["group-of-the-child"]


class Storm:
    """Threads that do something of every kind until `end`, and what they have done."""

    def __init__(self, broker: penstock.Broker) -> None:
        self.broker = broker
        self.queue = broker.queue("q", deduplication_window=3600.0)
        self.producer = broker.producer()
        self.transactional = broker.producer(transactional_id="parent")
        self.done: dict[str, int] = {}
        self.received: list[bytes] = []
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        actions = (self.topics, self.send, self.group, self.queues)
        self._threads = [threading.Thread(target=self._repeat, args=(action,)) for action in actions]
        for thread in self._threads:
            thread.start()

    def topics(self, number: int) -> None:
        self.broker.create_topic(f"t{number}").append(b"v")
        self.broker.delete_topic(f"t{number}")

    def send(self, number: int) -> None:
        self.producer.send("t", b"alone-%d" % number)
        self.producer.flush()
        with self.transactional.transaction():
            self.transactional.send("t", b"transaction-%d" % number)

    def group(self, number: int) -> None:
        with self.broker.consumer("t", group=f"g{number % 3}") as consumer:
            consumer.poll(timeout=0.001)
        self.broker.reset_offsets("moved", "t", "latest")

    def queues(self, number: int) -> None:
        self.queue.send(b"parent-%d" % number, deduplication_id=f"parent-{number}")
        messages = self.queue.receive(5, wait=0)
        self.queue.ack_many(messages)
        self.received += [message.value or b"" for message in messages]

    def _repeat(self, action: Callable[[int], None]) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                action(number)
                number += 1
        except BaseException as error:  # a thread's end would be a warning only
            self.errors.append(error)
        self.done[action.__name__] = number

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def what_a_child_does(broker: penstock.Broker, name: str) -> None:
    with broker.producer(transactional_id=name) as producer, producer.transaction():
        producer.send("t", name.encode())
    with broker.consumer("t", group=name) as consumer:
        consumer.poll(timeout=0.001)
    broker.reset_offsets(f"{name}-moved", "t", "latest")
    broker.create_topic(name)
    broker.queue("q").send(name.encode(), deduplication_id=name)
    broker.queue(f"{name}-queue").send(b"v")


@pytest.mark.parametrize("forks_count", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_children_of_a_storm_can_do_everything(tmp_path: Path, forks_count: int) -> None:
    """And no row of theirs or of the parent's threads is lost or there twice."""
    children = [f"child-{number}" for number in range(forks_count)]
    with penstock.open(tmp_path) as broker:
        broker.create_topic("t", partitions=4)
        storm = Storm(broker)
        try:
            for name in children:
                assert status(forked(lambda name=name: what_a_child_does(broker, name))) == 0
        finally:
            storm.end()
        assert not storm.errors
    with penstock.open(tmp_path) as broker:
        check_rows(broker, storm, children)
    assert penstock.verify(tmp_path).ok


def check_rows(broker: penstock.Broker, storm: Storm, children: list[str]) -> None:
    made = sorted([*children, *(f"{name}-queue" for name in children), "q", "t"])
    assert broker.topics() == made
    assert {"moved", *(f"{name}-moved" for name in children)} <= set(broker.groups())
    sent = [f"{kind}-{number}" for kind in ("alone", "transaction") for number in range(storm.done["send"])]
    with broker.consumer("t", isolation_level="read_committed") as consumer:
        found = []
        while records := consumer.poll(timeout=0, max_records=10_000):
            found += [(record.value or b"").decode() for record in records]
    assert sorted(found) == sorted([*sent, *children])
    for name in children:
        assert [message.value for message in broker.queue(f"{name}-queue").receive(2)] == [b"v"]
    ours = [f"parent-{number}" for number in range(storm.done["queues"])]
    queue = broker.queue("q")
    for name in [*children, *ours]:
        queue.send(b"again", deduplication_id=name)  # remembered: not stored
    left = []
    while messages := queue.receive(100, wait=0):
        left += [message.value or b"" for message in messages]
        queue.ack_many(messages)
    assert sorted(storm.received + left) == sorted(name.encode() for name in [*children, *ours])
