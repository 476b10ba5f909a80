"""Queues after a power cut and on a full disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import penstock
from penstock.streams import broker as broker_module


@pytest.fixture
def reboot(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on the machine has started anew."""

    def change() -> None:
        monkeypatch.setattr(broker_module, "boot_id", lambda: "00000000-0000-0000-0000-" + os.urandom(6).hex())

    return change


def settle_some(path: Path, fifo: bool, visibility_timeout: float = 30.0) -> None:
    """Twenty messages: 0 to 4 acknowledged, 5 dead, 6 in flight, the others ready."""
    with penstock.open(path, fsync="always") as broker:
        queue = broker.queue("q", fifo=fifo, visibility_timeout=visibility_timeout)
        for number in range(20):
            queue.send(b"%d" % number, group_id=f"g{number % 20}" if fifo else None)
        messages = queue.receive(7, wait=0)
        assert queue.ack_many(messages[:5]) == []
        messages[5].reject()


@pytest.mark.parametrize("fifo", [False, True])
def test_what_was_settled_stays_settled_over_a_power_cut(
    tmp_path: Path, reboot: Callable[[], None], fifo: bool
) -> None:
    settle_some(tmp_path / "data", fifo)
    reboot()
    with penstock.open(tmp_path / "data") as broker:
        queue = broker.queue("q")
        stats = queue.stats()
        assert (stats.ready, stats.in_flight, stats.dead) == (13, 1, 1)
        assert [message.value for message in queue.receive(20, wait=0)] == [b"%d" % number for number in range(7, 20)]


@pytest.mark.parametrize("fifo", [False, True])
@pytest.mark.parametrize("lost", ["log tail", "words", "links", "state"])
def test_files_that_the_power_cut_left_shorter(
    tmp_path: Path, reboot: Callable[[], None], fifo: bool, lost: str
) -> None:
    settle_some(tmp_path / "data", fifo, 0.2)
    state = tmp_path / "data" / "q-0" / "share-q"
    if lost == "log tail":
        log = tmp_path / "data" / "q-0" / f"{0:020d}.log"
        os.truncate(log, log.stat().st_size * 4 // 5)
        (tmp_path / "data" / "q-0" / "penstock.control").unlink()
    elif lost == "state":
        for file in state.iterdir():
            file.unlink()
    else:
        for file in state.glob(f"*.{lost}"):
            os.truncate(file, 0)
    reboot()
    with penstock.open(tmp_path / "data") as broker:
        queue = broker.queue("q", visibility_timeout=0.2)
        end = broker.topic("q").log(0).log_end_offset
        assert (end < 20) == (lost == "log tail")
        queue.send(b"%d" % end)
        seen = set()
        while messages := queue.receive(20, wait=1):
            seen |= {int(message.value) for message in messages}
            assert queue.ack_many(messages) == []
            if queue.stats().in_flight == 0 and queue.stats().ready == 0:
                break
        assert seen >= set(range(7, end + 1))  # nothing that was not settled is lost
        assert lost in ("words", "state") or not seen & set(range(5))


@pytest.mark.parametrize("fifo", [False, True])
def test_a_full_disk_is_an_error_and_loses_nothing(small_disk: Path, fifo: bool) -> None:
    with penstock.open(small_disk, fsync="never") as broker:
        queue = broker.queue("q", fifo=fifo)
        broker.alter_topic("q", segment_bytes=1 << 20)
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(4 << 20))
        sent = 0
        with pytest.raises(penstock.DiskFullError):
            for _ in range(100_000):
                queue.send(b"x" * 1000)
                sent += 1
        with open(small_disk / "rest", "wb", buffering=0) as rest, contextlib.suppress(OSError):
            while True:
                rest.write(bytes(512))
        with pytest.raises(penstock.DiskFullError) as caught:
            queue.receive(10, wait=0)  # nothing is acquired: the state has no room
        assert caught.value.retriable and sent > 3000
        ballast.unlink()
        received = 0
        while messages := queue.receive(100, wait=0):
            received += len(messages)
            queue.ack_many(messages)
        assert received == sent
        queue.send(b"there is room again")
