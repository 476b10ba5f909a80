"""Consume, transform, produce, commit, in processes that are killed at any instruction: every input counts once."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock

WORKERS = 3

# A process that imported everything and forks the workers, so that a kill costs milliseconds. It has no broker itself,
# and waits for what it kills, so that no number of a process is used again in between.
STARTER = """
import os, signal, sys, traceback, zlib, penstock

def work(path, number):
    broker = penstock.open(path)
    consumer = broker.consumer("in", group="g", isolation_level="read_committed")
    producer = broker.producer(transactional_id="worker-%d" % number)
    while True:
        records = consumer.poll(max_records=20, timeout=0.5)
        if not records:
            continue
        producer.begin_transaction()  # nobody else has this id: to be fenced here is an error
        try:
            for place, record in enumerate(records):
                producer.send("out", record.value + b"/%08x" % zlib.crc32(record.value), key=record.value)
                if place % 4 == 0:
                    producer.flush()  # so that most kills find a part of a transaction stored
            producer.send_offsets(consumer)
            producer.commit_transaction()
        except penstock.FencedError:  # a partition moved to another worker
            producer.abort_transaction()
            consumer.seek_to_committed()

path, errors, children = sys.argv[1], sys.argv[2], {}
for line in sys.stdin:
    command, number = line.split()
    if command == "kill":
        child = children.pop(number)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    else:
        children[number] = os.fork()
        if children[number] == 0:
            try:
                work(path, int(number))
            except BaseException:
                with open(os.path.join(errors, "%d.txt" % os.getpid()), "w") as file:
                    traceback.print_exc(file=file)
            os._exit(1)
    print("done", flush=True)
for child in children.values():  # the test itself was ended
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


class Workers:
    """The worker processes, by way of the process that starts and kills them."""

    def __init__(self, path: Path, errors: Path) -> None:
        command = [sys.executable, "-c", STARTER, str(path), str(errors)]
        self._starter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._running: set[int] = set()

    def _tell(self, command: str, number: int) -> None:
        assert self._starter.stdin is not None and self._starter.stdout is not None
        self._starter.stdin.write(f"{command} {number}\n")
        self._starter.stdin.flush()
        assert self._starter.stdout.readline() == "done\n"

    def start(self, number: int) -> None:
        """Start a worker; does not wait until it works."""
        self._tell("start", number)
        self._running.add(number)

    def kill(self, number: int) -> None:
        """SIGKILL."""
        self._running.discard(number)
        self._tell("kill", number)

    def close(self) -> None:
        """Kill all."""
        for number in list(self._running):
            self.kill(number)
        self._starter.communicate()


@contextlib.contextmanager
def started(path: Path, errors: Path) -> Iterator[Workers]:
    """Workers that are gone afterwards."""
    errors.mkdir()
    workers = Workers(path, errors)
    try:
        for number in range(WORKERS):
            workers.start(number)
        yield workers
    finally:
        workers.close()


def read(consumer: penstock.Consumer, into: Counter[bytes]) -> None:
    """Count what is there to be read, by the input it came from."""
    while records := consumer.poll(timeout=0, max_records=10_000):
        for record in records:
            assert record.value is not None
            value, checksum = record.value.split(b"/")
            assert checksum == b"%08x" % zlib.crc32(value)
            into[value] += 1


def wait_until_done(broker: penstock.Broker) -> None:
    deadline = time.monotonic() + 60
    while broker.describe_group("g").lag and time.monotonic() < deadline:
        time.sleep(0.02)


def run_kills(path: Path, kills: int, seed: int) -> int:
    """How many records of transactions that were never committed lie in the log."""
    generator = random.Random(seed)
    errors = path.with_name("errors")
    sent: Counter[bytes] = Counter()
    along: Counter[bytes] = Counter()
    with penstock.open(path, fsync="never") as broker:
        broker.create_topic("in", partitions=4)
        broker.create_topic("out", partitions=3)
        reader = broker.consumer("out", isolation_level="read_committed")
        with started(path, errors) as workers, broker.producer() as producer:
            for _ in range(kills):
                first = len(sent)
                values = [
                    b"%d:" % (first + n) + b"x" * generator.randrange(80) for n in range(generator.randrange(600))
                ]
                producer.send_many("in", values)
                producer.flush()
                sent.update(values)
                time.sleep(generator.random() ** 2 * 0.15)
                number = generator.randrange(WORKERS)
                workers.kill(number)
                workers.start(number)
                read(reader, along)
                assert not [file.read_text() for file in errors.iterdir()]
            wait_until_done(broker)
        assert not [file.read_text() for file in errors.iterdir()]
        broker.maintain()
        assert all(entry.state == "none" for entry in broker.transactions())
        read(reader, along)
        reader.close()
        again: Counter[bytes] = Counter()
        everything: Counter[bytes] = Counter()
        with broker.consumer("out", isolation_level="read_committed") as consumer:
            read(consumer, again)
        with broker.consumer("out") as consumer:
            read(consumer, everything)
    assert (len(again), again.total()) == (len(sent), sent.total())
    assert again == along == sent
    assert everything >= sent
    assert penstock.verify(path).ok
    return everything.total() - sent.total()


def test_every_input_counts_once(tmp_path: Path) -> None:
    run_kills(tmp_path / "data", 10, 1)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_every_input_counts_once_for_long(tmp_path: Path) -> None:
    assert run_kills(tmp_path / "data", int(os.environ.get("PENSTOCK_KILLS", "2000")), 2) > 0
