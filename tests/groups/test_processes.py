"""Members in several processes, killed, stopped and resumed at random: every record is read, none is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from children import Child

import penstock

MEMBER = """
import sys, penstock
with penstock.open(sys.argv[1]) as broker:
    with broker.consumer("t", group="g", session_timeout_ms=int(sys.argv[2])) as consumer:
        print("ready", flush=True)
        while True:
            records = consumer.poll(timeout=0.2)
            for record in records:
                print(record.partition, record.offset, flush=True)
"""


class Member:
    """A process with one consumer; what it read is in a file."""

    def __init__(self, path: Path, number: int, session_timeout_ms: int = 45_000) -> None:
        self.out = path.parent / f"member-{number}.txt"
        with self.out.open("w") as out:
            self.process = Child(MEMBER, path, session_timeout_ms, stdout=out)
        while "ready" not in self.out.read_text():
            time.sleep(0.01)
            assert self.process.poll() is None, "the member ended by itself"

    def seen(self) -> list[tuple[int, int]]:
        lines = self.out.read_text().split("\n")[1:-1]
        return [(int(partition), int(offset)) for partition, offset in map(str.split, lines)]

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


def wait_for(members: list[Member], expected: set[tuple[int, int]], seconds: float = 30) -> set[tuple[int, int]]:
    deadline = time.monotonic() + seconds
    while True:
        seen = {place for member in members for place in member.seen()}
        if seen >= expected or time.monotonic() > deadline:
            return seen
        time.sleep(0.05)


def settled(broker: penstock.Broker) -> penstock.GroupDescription:
    deadline = time.monotonic() + 30
    while (found := broker.describe_group("g")).state != "stable" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found.state == "stable"
    return found


def run_chaos(path: Path, rounds: int, seed: int) -> None:
    generator = random.Random(seed)
    members: list[Member] = []
    living: list[Member] = []
    expected: set[tuple[int, int]] = set()
    with penstock.open(path) as broker:
        topic = broker.create_topic("t", partitions=6)
        try:
            for number in range(rounds):
                while len(living) < 3:
                    living.append(Member(path, len(members), 1000))
                    members.append(living[-1])
                for _ in range(50):
                    meta = topic.append(b"v", partition=generator.randrange(6))
                    expected.add((meta.partition, meta.offset))
                victim = living.pop(generator.randrange(3))
                if number % 3 == 2:  # a zombie: stopped past its session, then resumed
                    settled(broker)  # one that is stopped inside a rebalance holds up the others' until it goes on
                    victim.process.send_signal(signal.SIGSTOP)
                    assert wait_for(members, expected) == expected
                    victim.process.send_signal(signal.SIGCONT)
                    living.append(victim)
                else:
                    victim.end()
            assert wait_for(members, expected) == expected
            found = settled(broker)
            owners = {partition.partition: partition.member_id for partition in found.partitions}
            assert len(owners) == 6 and None not in owners.values()
            assert all(partition.lag == 0 for partition in found.partitions)
        finally:
            for member in members:
                member.end()


def test_killed_and_stopped_members_lose_nothing(tmp_path: Path) -> None:
    run_chaos(tmp_path / "data", 6, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_and_stopped_members_lose_nothing_for_long(tmp_path: Path, seed: int) -> None:
    run_chaos(tmp_path / "data", 30, seed)


def test_a_zombie_cannot_commit(tmp_path: Path) -> None:
    path = tmp_path / "data"
    script = """
import sys, os, signal, penstock
broker = penstock.open(sys.argv[1])
consumer = broker.consumer("t", group="g", enable_auto_commit=False, session_timeout_ms=500)
assert len(consumer.poll(max_records=2)) == 2
print("stopping", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
try:
    consumer.commit()
    print("committed")
except penstock.FencedError:
    print("fenced")
"""
    with penstock.open(path) as broker:
        topic = broker.create_topic("t")
        for n in range(10):
            topic.append(b"%d" % n)
        zombie = Child(script, path, stdout=subprocess.PIPE, text=True)
        assert zombie.stdout is not None
        assert zombie.stdout.readline() == "stopping\n"
        with broker.consumer("t", group="g", session_timeout_ms=500) as consumer:
            records: list[penstock.Record] = []
            deadline = time.monotonic() + 30
            while len(records) < 10 and time.monotonic() < deadline:
                records += consumer.poll(timeout=0.1)
            assert len(records) == 10
            os.kill(zombie.pid, signal.SIGCONT)
            assert zombie.communicate(timeout=30)[0] == "fenced\n"
        assert broker.describe_group("g").partitions[0].committed == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_a_member_of_its_own(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        topic = broker.create_topic("t", partitions=2)
        consumer = broker.consumer("t", group="g")
        consumer.poll(timeout=0)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                deadline = time.monotonic() + 30
                while len(consumer.assignment()) != 1 and time.monotonic() < deadline:
                    consumer.poll(timeout=0.05)
                code = 0 if len(consumer.assignment()) == 1 else 2
                broker.close()
            finally:
                os._exit(code)
        deadline = time.monotonic() + 30
        state: tuple[int, int] = (0, 0)
        while state == (0, 0) and time.monotonic() < deadline:
            consumer.poll(timeout=0.05)
            state = os.waitpid(child, os.WNOHANG)
        assert state == (child, 0)
        topic.append(b"a", partition=0)
        topic.append(b"b", partition=1)
        seen: list[bytes | None] = []
        while len(seen) < 2 and time.monotonic() < deadline:
            seen += [record.value for record in consumer.poll(timeout=0.1)]
        assert sorted(v for v in seen if v) == [b"a", b"b"]
        consumer.close()
