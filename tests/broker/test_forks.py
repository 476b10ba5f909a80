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


def storm(broker: penstock.Broker, stop: threading.Event) -> list[threading.Thread]:
    """Threads that do something of every kind until `stop`."""
    queue = broker.queue("q", deduplication_window=300.0)
    producer, transactional = broker.producer(), broker.producer(transactional_id="parent")

    def topics(number: int) -> None:
        broker.create_topic(f"t{number}").append(b"v")
        broker.delete_topic(f"t{number}")

    def send(number: int) -> None:
        producer.send("t", b"v")
        producer.flush()
        with transactional.transaction():
            transactional.send("t", b"v")

    def group(number: int) -> None:
        with broker.consumer("t", group=f"g{number % 3}") as consumer:
            consumer.poll(timeout=0.001)
        broker.reset_offsets("moved", "t", "latest")

    def queues(number: int) -> None:
        queue.send(b"v", deduplication_id=f"{number}")
        queue.ack_many(queue.receive(5, wait=0))

    def repeat(action: Callable[[int], None]) -> None:
        number = 0
        while not stop.is_set():
            action(number)
            number += 1

    threads = [threading.Thread(target=repeat, args=(action,)) for action in (topics, send, group, queues)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("forks_count", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_children_of_a_storm_can_do_everything(tmp_path: Path, forks_count: int) -> None:
    with penstock.open(tmp_path) as broker:
        broker.create_topic("t", partitions=4)
        stop = threading.Event()
        threads = storm(broker, stop)
        try:
            for number in range(forks_count):

                def in_child(name: str = f"child-{number}") -> None:
                    with broker.producer(transactional_id=name) as producer, producer.transaction():
                        producer.send("t", b"v")
                    with broker.consumer("t", group=name) as consumer:
                        consumer.poll(timeout=0.001)
                    broker.create_topic(name)
                    broker.queue("q").send(b"v", deduplication_id=name)
                    broker.queue(f"{name}-queue").send(b"v")

                assert status(forked(in_child)) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert sum(name.startswith("child-") for name in broker.topics()) == 2 * forks_count
