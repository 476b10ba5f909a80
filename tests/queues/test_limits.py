"""Limits hold exactly, with many senders and receivers at once: length, bytes, messages in flight."""

from __future__ import annotations

import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from children import FORKSERVER

import penstock
from penstock import OverLimitError, QueueFullError

SENT = 60


def send(path: str, out: Connection) -> None:
    """In another process: send, and tell how many were taken and the greatest number of ready messages ever seen."""
    taken = most = 0
    with penstock.open(path, fsync="never") as broker:
        queue = broker.queue("q")
        for number in range(SENT):
            try:
                queue.send(b"%04d" % number)
                taken += 1
            except QueueFullError:
                pass
            most = max(most, queue.stats().ready)
    out.send((taken, most))


def run_processes(target: Any, path: Path, count: int = 3) -> list[Any]:
    pipes = [FORKSERVER.Pipe(duplex=False) for _ in range(count)]
    processes = [FORKSERVER.Process(target=target, args=(str(path), tell), daemon=True) for _, tell in pipes]
    for process in processes:
        process.start()
    found = [told.recv() for told, _ in pipes]
    for process in processes:
        process.join()
    return found


@pytest.mark.parametrize("overflow", ["drop-head", "reject-publish"])
@pytest.mark.parametrize("limit", [{"max_length": 7}, {"max_length_bytes": 28}])
def test_length_holds_with_several_processes(tmp_path: Path, overflow: str, limit: dict[str, int]) -> None:
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        queue = broker.queue("q", overflow=overflow, **limit)
        found = run_processes(send, tmp_path / "data")
        assert max(most for _, most in found) == 7 == queue.stats().ready
        taken = sum(one for one, _ in found)
        assert taken == (7 if overflow == "reject-publish" else 3 * SENT) == queue.stats().sent


def receive(path: str, out: Connection) -> None:
    """In another process: receive and give back; the most that were in flight at once."""
    most = 0
    with penstock.open(path, fsync="never") as broker:
        queue = broker.queue("q")
        for _ in range(100):
            try:
                held = queue.receive(3, wait=0)
            except OverLimitError:
                continue
            most = max(most, queue.stats().in_flight)
            for message in held:
                message.nack(failed=False)
    out.send(most)


@pytest.mark.parametrize("options", [{}, {"max_priority": 2}, {"fifo": True}])
def test_messages_in_flight_hold_with_several_processes(tmp_path: Path, options: dict[str, Any]) -> None:
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        queue = broker.queue("q", max_in_flight=5, **options)
        for number in range(30):
            queue.send(b"x", priority=number % 3 if "max_priority" in options else 0, group_id=str(number))
        assert max(run_processes(receive, tmp_path / "data")) <= 5
        assert len(queue.receive(10, wait=0)) == 5
        with pytest.raises(OverLimitError, match="max_in_flight"):
            queue.receive(1, wait=0)


def test_threads_of_one_handle_keep_to_the_limits(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        queue = broker.queue("q", max_length=10, max_in_flight=4)
        threads = [
            threading.Thread(target=lambda: [queue.send(b"x") for _ in range(50)], name=f"sender-{number}")
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert queue.stats().ready == 10 and queue.stats().sent == 200
        assert len(queue.receive(10, wait=0)) == 4


def test_a_repeated_message_drops_nothing_and_is_not_refused(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        for overflow in ("drop-head", "reject-publish"):
            queue = broker.queue(overflow, max_length=2, overflow=overflow)
            first = queue.send(b"a", deduplication_id="a")
            queue.send(b"b", deduplication_id="b")
            assert queue.send(b"a", deduplication_id="a") == first
            assert [message.value for message in queue.receive(wait=0)] == [b"a", b"b"]


def test_limits_may_be_set_and_lifted_later(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        queue = broker.queue("q")
        queue.send_many([b"x"] * 5)
        broker.queue("q", max_length=3, max_in_flight=1)
        queue.send(b"y")
        assert queue.stats().ready == 3 and len(queue.receive(5, wait=0)) == 1
        broker.queue("q", max_length=None, max_in_flight=None)
        queue.send_many([b"x"] * 5)
        assert queue.stats().ready == 7 and len(queue.receive(10, wait=0)) == 7
