"""Many processes on one queue, killed at random: nothing lost, nothing acknowledged twice, groups in their order."""

from __future__ import annotations

import collections
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from children import Child

import penstock

WORKER = """
import os, sys
import penstock
path, log, seed, fifo = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1"
import random
chance = random.Random(seed)
with penstock.open(path, fsync="never") as broker, open(log, "ab", buffering=0) as out:
    queue = broker.queue("q", visibility_timeout=0.4, max_receives=None, **({"fifo": True} if fifo else {}))
    while True:
        for message in queue.receive(chance.randint(1, 8), wait=1.0):
            out.write(b"got %d %s\\n" % (message.offset, message.value))
            dice = chance.random()
            try:
                if dice < 0.8:
                    message.ack()
                    out.write(b"ack %d %s\\n" % (message.offset, message.value))
                elif dice < 0.9:
                    message.nack(failed=dice < 0.85)
            except penstock.StaleReceiptError:
                pass
"""


def run_workers(
    path: Path, logs: Path, rounds: int, seed: int, fifo: bool, messages: int, groups: int = 7
) -> list[Path]:
    chance = random.Random(seed)
    files: list[Path] = []
    workers: list[Child] = []

    def start() -> None:
        log = logs / f"{len(files)}.log"
        log.touch()
        files.append(log)
        workers.append(Child(WORKER, path, log, len(files) + seed, int(fifo)))

    try:
        with penstock.open(path, fsync="never") as broker:
            queue = broker.queue("q", visibility_timeout=0.4, max_receives=None, **({"fifo": True} if fifo else {}))
            for _ in range(3):
                start()
            for round_number in range(rounds):
                for number in range(messages // rounds):
                    total = round_number * (messages // rounds) + number
                    queue.send(b"%d" % total, group_id=f"g{total % groups}" if fifo else None)
                time.sleep(chance.uniform(0.1, 0.5))
                victim = workers.pop(chance.randrange(len(workers)))
                victim.send_signal(signal.SIGKILL)
                victim.wait()
                start()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                stats = queue.stats()
                if stats.ready + stats.in_flight + stats.delayed == 0:
                    break
                time.sleep(0.1)
            assert (stats.ready, stats.in_flight, stats.delayed, stats.dead) == (0, 0, 0, 0)
            assert stats.acknowledged <= stats.sent == messages // rounds * rounds
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return files


def check(files: list[Path], count: int, fifo: bool) -> None:
    got: set[bytes] = set()
    acknowledged: collections.Counter[bytes] = collections.Counter()
    for file in files:
        for line in file.read_bytes().splitlines():
            kind, _, value = line.split()
            if kind == b"got":
                got.add(value)
            else:
                acknowledged[value] += 1
    assert got == {b"%d" % number for number in range(count)}
    assert not [value for value, times in acknowledged.items() if times > 1]


@pytest.mark.parametrize("fifo", [False, True])
def test_killed_workers_lose_and_repeat_nothing(tmp_path: Path, fifo: bool) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    files = run_workers(tmp_path / "data", logs, 6, 1, fifo, 600)
    check(files, 600, fifo)


@pytest.mark.slow
@pytest.mark.parametrize("fifo", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_killed_workers_for_long(tmp_path: Path, fifo: bool, seed: int) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    files = run_workers(tmp_path / "data", logs, 150, 100 + seed, fifo, 15_000, groups=97)
    check(files, 15_000, fifo)


ORDERED = """
import sys
import penstock
with penstock.open(sys.argv[1], fsync="never") as broker, open(sys.argv[2], "ab", buffering=0) as out:
    queue = broker.queue("q", fifo=True)
    while True:
        for message in queue.receive(5, wait=0.5):
            out.write(b"%s %s\\n" % (message.group_id.encode(), message.value))
            message.ack()
"""


def test_groups_keep_their_order_over_processes(tmp_path: Path) -> None:
    shared = tmp_path / "order.log"
    shared.touch()
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        queue = broker.queue("q", fifo=True)
        workers = [Child(ORDERED, tmp_path / "data", shared) for _ in range(3)]
        try:
            for number in range(2000):
                queue.send(b"%d" % number, group_id=f"g{number % 13}")
            deadline = time.monotonic() + 60
            while queue.stats().acknowledged < 2000 and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    seen: dict[bytes, list[int]] = collections.defaultdict(list)
    for line in (
        shared.read_bytes().splitlines()
    ):  # appended under O_APPEND before the acknowledgement: in the order of delivery
        group, value = line.split()
        seen[group].append(int(value))
    assert sum(map(len, seen.values())) == 2000
    assert all(numbers == sorted(numbers) for numbers in seen.values())


def test_a_forked_child_receives_too(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        queue = broker.queue("q")
        queue.send_many([b"a", b"b"])
        (first,) = queue.receive(1, wait=0)
        pid = os.fork()
        if pid == 0:
            (second,) = queue.receive(5, wait=0)
            second.ack()
            os._exit(0 if second.value == b"b" else 1)
        assert os.waitpid(pid, 0)[1] == 0
        first.ack()
        assert queue.stats().acknowledged == 2


def test_a_blocked_receiver_wakes_for_another_process(tmp_path: Path) -> None:
    code = (
        "import sys, penstock\nwith penstock.open(sys.argv[1]) as b: print(b.queue('q').receive(1, wait=30)[0].value)"
    )
    with penstock.open(tmp_path / "data") as broker:
        queue = broker.queue("q")
        child = Child(code, tmp_path / "data", stdout=subprocess.PIPE)
        time.sleep(0.5)
        queue.send(b"wake up")
        out, _ = child.communicate(timeout=20)
        assert out.strip() == b"b'wake up'"


def test_a_long_backlog_is_taken_in_by_chunks(tmp_path: Path) -> None:
    chunk = 1 << 17
    with penstock.open(tmp_path / "data", fsync="never") as broker, penstock.open(tmp_path / "data") as other:
        queue = broker.queue("q")
        queue.send_many([b""] * (4 * chunk + 5))
        assert [message.offset for message in queue.receive(3, wait=0)] == [0, 1, 2]
        files = sorted(path.name for path in (tmp_path / "data" / "q-0" / "share-q").glob("*.words"))
        assert files == [f"{number * chunk:020d}.words" for number in range(3)]  # two, and one that was made ready
        handles, seen = [other.queue("q"), queue], 3
        while messages := handles[seen % 2].receive(100_001, wait=0):
            assert [message.offset for message in messages] == list(range(seen, seen + len(messages)))
            seen += len(messages)
        assert seen == 4 * chunk + 5 and queue.stats().in_flight == seen
