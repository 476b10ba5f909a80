"""Senders and workers of nine kinds of queue are killed at random: nothing lost, settled twice, or out of order."""

from __future__ import annotations

import collections
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from children import Child

import penstock

KINDS: dict[str, dict[str, Any]] = {
    "standard": {},
    "fifo": {"fifo": True},
    "priority": {"max_priority": 2},
    "delayed": {},
    "limited": {"max_length": 5, "dead_letter": "letters"},
    "dead-letter": {"dead_letter": "letters"},
    "share group": {},
    "fair": {"fair": True},
    "deduplicated": {},
}
COMMON = {"visibility_timeout": 0.3, "max_receives": None}

COMMON_CODE = """
import json, os, random, sys, time
import penstock
kind, path, log, name, options = *sys.argv[1:5], json.loads(sys.argv[5])
chance = random.Random(name)
broker = penstock.open(path, fsync="never")
out = open(log, "ab", buffering=0)
"""
SENDER = (
    COMMON_CODE
    + """
number = int(sys.argv[6])
topic = broker.topic("q") if kind == "share group" else broker.queue("q", **options)
while True:
    due = int(time.time() * 1000) + chance.randint(0, 150)
    body = f"{name}-{number}-{due if kind == 'delayed' else 0}".encode()
    out.write(b"try %d\\n" % number)
    if kind == "share group":
        topic.append(body)
    elif kind == "delayed":
        topic.send(body, at=due)
    else:
        topic.send(
            body,
            priority=number % 3 if kind == "priority" else 0,
            group_id=f"{name}-{number % 5}" if kind in ("fifo", "fair") else None,
            deduplication_id=f"{name}-{number}" if kind == "deduplicated" else None,
        )
    out.write(b"sent %d\\n" % number)
    number += 1
    time.sleep(0.001)
"""
)
WORKER = (
    COMMON_CODE
    + """
group = sys.argv[6]
if kind == "share group":
    queue = broker.share_consumer("q", group, **options)
else:
    queue = broker.queue("q", **options)
while True:
    for message in queue.receive(chance.randint(1, 6), wait=1.0):
        place = f"{group} {message.partition}.{message.offset} {message.value.decode()}\\n".encode()
        early = kind == "delayed" and time.time() * 1000 < int(message.value.rsplit(b"-", 1)[1]) - 1
        out.write((b"early " if early else b"got ") + place)
        dice = chance.random()
        try:
            if dice < 0.4 and kind == "dead-letter":
                message.reject()
                out.write(b"rejected " + place)
            elif dice < 0.85:
                message.ack()
                out.write(b"ack " + place)
            elif dice < 0.93:
                message.nack(failed=dice < 0.9)
        except penstock.StaleReceiptError:
            pass
"""
)


class Killing:
    """One run: processes that are killed and started again, and what they wrote down."""

    def __init__(self, kind: str, directory: Path, seed: int) -> None:
        self.kind, self.chance = kind, random.Random(seed)
        self.data, self.log = str(directory / "data"), directory / "workers.log"
        self.log.touch()
        self.sends = directory / "sender.log"
        self.sends.touch()
        self.options = {**COMMON, **KINDS[kind]}
        self.processes: list[tuple[str, str, Child]] = []
        self.number = 0
        self.groups = ["a", "b"] if kind == "share group" else ["q"]

    def start(self, role: str, group: str) -> None:
        """A sender that goes on where the last one was, or a worker."""
        self.number += 1
        code, log = (SENDER, self.sends) if role == "sender" else (WORKER, self.log)
        lines = self.sends.read_text().split("\n")
        tried = [int(line.split()[1]) for line in lines if line.startswith("try ")]
        sent = [int(line.split()[1]) for line in lines if line.startswith("sent ")]
        begin = 0 if not tried else tried[-1] if tried[-1] not in sent[-1:] else tried[-1] + 1
        name = "s" if role == "sender" else f"w{self.number}"
        arguments = self.kind, self.data, log, name, json.dumps(self.options), begin if role == "sender" else group
        self.processes.append((role, group, Child(code, *arguments)))

    def under_way(self) -> bool:
        """Some were sent, and one was settled."""
        return self.sends.read_bytes().count(b"sent ") > 10 and b"ack" in self.log.read_bytes()

    def run(self, kills: int) -> None:
        """Kill so many, each after some time, and start another in its place."""
        self.start("sender", "")
        for group in self.groups:
            self.start("worker", group)
            self.start("worker", group)
        begun = time.monotonic()
        while not self.under_way() and time.monotonic() < begun + 60:
            time.sleep(0.01)
        try:
            for _ in range(kills):
                time.sleep(self.chance.uniform(0.05, 0.4))
                role, group, victim = self.processes.pop(self.chance.randrange(len(self.processes)))
                victim.kill()
                victim.wait()
                self.start(role, group)
        finally:
            for _, _, process in self.processes:
                process.kill()
                process.wait()

    def drain(self, broker: penstock.Broker) -> None:
        """Settle what is left, as one more worker."""
        for group in self.groups:
            if self.kind == "share group":
                queue: penstock.ShareGroup = broker.share_consumer("q", group, **self.options)
            else:
                queue = broker.queue("q")
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                for message in queue.receive(100, wait=0.2):
                    with open(self.log, "ab") as out:
                        place = f"{group} {message.partition}.{message.offset} {message.value.decode()}\n".encode()
                        out.write(b"got " + place)
                        message.ack()
                        out.write(b"ack " + place)
                stats = queue.stats()
                if stats.ready + stats.in_flight + stats.delayed == 0:
                    break
            assert stats.ready + stats.in_flight + stats.delayed == 0

    def check(self, broker: penstock.Broker) -> None:
        """Everything that was sent was handed out (or dropped); each settled once; groups in their order."""
        sent = [line.split()[1] for line in self.sends.read_text().splitlines() if line.startswith("sent ")]
        lines = [line.split() for line in self.log.read_text().splitlines()]
        assert len(sent) > 10 and not [line for line in lines if line[0] == "early"]
        letters = self.letters(broker)
        assert max(letters.values(), default=1) == 1
        for group in self.groups:
            mine = [line for line in lines if line[1] == group]
            settled = collections.Counter(line[2] for line in mine if line[0] in ("ack", "rejected"))
            assert max(settled.values()) == 1
            acknowledged = {line[2] for line in mine if line[0] == "ack"}
            assert not acknowledged & set(letters)
            handed_out = {line[3].split("-")[1] for line in mine if line[0] == "got"}
            dropped = set(self.dropped) if self.kind == "limited" else set()
            assert set(sent) <= handed_out | dropped
            if self.kind == "dead-letter":
                assert {line[2] for line in mine if line[0] == "rejected"} <= set(letters)
            if self.kind == "fifo":
                self.check_order(mine)
        if self.kind == "deduplicated":
            values = [record.value for record in broker.topic("q").replay()]
            assert len({value.split(b"-")[1] for value in values}) == len(values)

    def letters(self, broker: penstock.Broker) -> collections.Counter[str]:
        """How many dead letters each message has."""
        found: collections.Counter[str] = collections.Counter()
        self.dropped: set[str] = set()
        if "letters" in broker.queues():
            for record in broker.topic("letters").replay():
                headers = dict(record.headers)
                place = (headers["dead-letter-partition"] or b"").decode()
                found[f"{place}.{(headers['dead-letter-offset'] or b'').decode()}"] += 1
                self.dropped.add((record.value or b"").decode().split("-")[1])
        return found

    def check_order(self, lines: list[list[str]]) -> None:
        """The messages of a group were handed out for the first time in the order in which they were sent."""
        first: dict[int, list[int]] = collections.defaultdict(list)
        for line in lines:
            number = int(line[3].split("-")[1])
            if line[0] == "got" and number not in first[number % 5]:
                first[number % 5].append(number)
        assert all(numbers == sorted(numbers) for numbers in first.values())


def run(kind: str, directory: Path, kills: int, seed: int) -> None:
    with penstock.open(directory / "data", fsync="never") as broker:
        killing = Killing(kind, directory, seed)
        if kind == "share group":
            broker.create_topic("q", partitions=2)
        else:
            broker.queue("q", **killing.options)
        killing.run(kills)
        killing.drain(broker)
        killing.check(broker)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_few_kills(tmp_path: Path, kind: str) -> None:
    run(kind, tmp_path, 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", list(KINDS))
def test_many_kills(tmp_path: Path, kind: str, seed: int) -> None:
    run(kind, tmp_path, 80, seed + 10)
