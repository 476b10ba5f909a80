"""Consume, transform, produce, commit, in processes that are killed at any instruction: every input counts once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import penstock

WORKER = """
import sys, penstock
broker = penstock.open(sys.argv[1])
number = sys.argv[2]
consumer = broker.consumer("in", group="g", isolation_level="read_committed")
producer = broker.producer(transactional_id="worker-" + number)
print("ready", flush=True)
while True:
    records = consumer.poll(max_records=20, timeout=0.5)
    if not records:
        continue
    try:
        with producer.transaction():
            for record in records:
                producer.send("out", record.value + b"/" + number.encode(), key=record.value)
            producer.send_offsets(consumer)
    except penstock.FencedError:
        consumer.seek_to_committed()
"""


def start(path: Path, number: int) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(path), str(number)], stdout=subprocess.PIPE)
    assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
    return worker


def results(broker: penstock.Broker, level: str) -> Counter[bytes]:
    seen: Counter[bytes] = Counter()
    with broker.consumer("out", isolation_level=level) as consumer:
        while records := consumer.poll(timeout=0, max_records=10_000):
            seen.update((record.value or b"").split(b"/")[0] for record in records)
    return seen


def run_kills(path: Path, kills: int, seed: int) -> None:
    generator = random.Random(seed)
    sent = 0
    with penstock.open(path) as broker:
        broker.create_topic("in", partitions=4)
        broker.create_topic("out", partitions=3)
        workers = [start(path, number) for number in range(2)]
        try:
            for _ in range(kills):
                with broker.producer() as producer:
                    count = generator.randrange(50, 500)
                    producer.send_many("in", [b"%d" % n for n in range(sent, sent + count)])
                    sent += count
                time.sleep(generator.random() * 0.05)
                number = generator.randrange(2)
                workers[number].kill()
                workers[number].wait()
                workers[number] = start(path, number)
            deadline = time.monotonic() + 60
            while broker.describe_group("g").lag and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        broker.maintain()
        seen = results(broker, "read_committed")
        assert set(seen) == {b"%d" % n for n in range(sent)}
        assert max(seen.values()) == 1
        assert sum(results(broker, "read_uncommitted").values()) >= sent
        assert all(entry.state == "none" for entry in broker.transactions())
    assert penstock.verify(path).ok


def test_every_input_counts_once(tmp_path: Path) -> None:
    run_kills(tmp_path / "data", 12, 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_every_input_counts_once_for_long(tmp_path: Path, seed: int) -> None:
    run_kills(tmp_path / "data", 200, seed)
