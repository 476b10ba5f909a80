"""Processes are killed with SIGKILL at any instruction; what was acknowledged stays, and nobody else is held up."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest
from children import Child

import penstock

WRITER = """
import sys, penstock
broker = penstock.open(sys.argv[1])
topic = broker.topic("t")
tag = sys.argv[2].encode()
n = 0
while True:
    value = b"%s/%d/" % (tag, n) + b"x" * (n * 37 % 3000)
    meta = topic.append(value, partition=0)
    sys.stdout.write(f"{meta.offset} {value.decode()}\\n")
    sys.stdout.flush()
    n += 1
"""
BATCHER = """
import sys, penstock
broker = penstock.open(sys.argv[1])
tag = sys.argv[2].encode()
n = 0
with broker.producer(linger_ms=1000, compression_type="lz4") as producer:
    while True:
        producer.send_many("t", [b"%s/%d/" % (tag, n + i) + b"y" * ((n + i) * 37 % 3000) for i in range(300)])
        producer.flush()
        n += 300
        sys.stdout.write(f"- {tag.decode()}/{n}\\n")
        sys.stdout.flush()
"""
READER = """
import sys, penstock
broker = penstock.open(sys.argv[1])
for record in broker.consumer("t"):
    print(record.offset, flush=True)
"""


def start(script: str, path: Path, tag: str) -> Child:
    return Child(script, path, tag, stdout=subprocess.PIPE, text=True)


def kill_after(process: Child, seconds: float) -> list[str]:
    """Let it work for `seconds` after its first line, kill it; the whole lines that it wrote."""
    assert process.stdout is not None
    import threading

    lines = [process.stdout.readline()]
    assert lines[0], "the writer ended by itself"
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    lines += process.stdout.readlines()
    assert process.wait() == -9
    process.stdout.close()
    timer.join()
    return [line.rstrip("\n") for line in lines if line.endswith("\n")]


def expected_value(value: bytes) -> bytes:
    tag, n, filling = value.split(b"/")
    letter = b"y" if tag.startswith(b"b") else b"x"
    assert filling == letter * (int(n) * 37 % 3000), "a torn or invented value"
    return tag


class Checked:
    """What was read so far; every record is looked at once, and none is kept, however much fast writers write."""

    def __init__(self) -> None:
        self.next_offset = 0
        self.counts: dict[bytes, int] = {}

    def go_on(self, broker: penstock.Broker, acknowledged: dict[int, bytes]) -> None:
        """Check what came since."""
        place = penstock.TopicPartition("t", 0)
        with broker.consumer() as consumer:
            consumer.assign([place])
            consumer.seek(place, self.next_offset)
            while batches := consumer.poll_batches(timeout=0):
                for batch in batches:
                    for offset, value in zip(batch.offsets.tolist(), batch.values(), strict=True):
                        self._check(offset, value)
                        if offset in acknowledged:
                            assert value == acknowledged.pop(offset)
        assert not acknowledged, "acknowledged, and not there"

    def _check(self, offset: int, value: bytes) -> None:
        assert offset == self.next_offset
        self.next_offset += 1
        tag, number = expected_value(value), int(value.split(b"/")[1])
        assert number == self.counts.get(tag, 0), "a record is missing, repeated or out of order"
        self.counts[tag] = number + 1


def crash_rounds(path: Path, rounds: int, keep_open: bool, seed: int) -> None:
    chance = random.Random(seed)
    first = penstock.open(path)
    first.create_topic("t", segment_bytes=1 << 20)
    if not keep_open:
        first.close()
    checked = Checked()
    everything: dict[int, bytes] = {}
    for turn in range(rounds):
        acknowledged: dict[int, bytes] = {}
        flushed: dict[bytes, int] = {}
        writers = [start(WRITER, path, f"a{turn}"), start(BATCHER, path, f"b{turn}")]
        for writer in writers:
            for line in kill_after(writer, chance.uniform(0.0, 0.25)):
                offset, value = line.split(" ")
                if offset == "-":
                    tag, count = value.split("/")
                    flushed[tag.encode()] = int(count)
                else:
                    acknowledged[int(offset)] = value.encode()
        before = time.monotonic()
        broker = first if keep_open else penstock.open(path)
        meta = broker.topic("t").append(b"c%d/0/" % turn, partition=0)
        assert time.monotonic() - before < 5.0
        acknowledged[meta.offset] = b"c%d/0/" % turn
        everything.update(acknowledged)
        checked.go_on(broker, acknowledged)
        for tag, count in flushed.items():
            assert checked.counts[tag] >= count
        if not keep_open:
            broker.close()
    first.close()
    with penstock.open(path) as broker:
        again = Checked()
        again.go_on(broker, everything)
        assert (again.next_offset, again.counts) == (checked.next_offset, checked.counts)
    assert penstock.verify(path).ok


@pytest.mark.parametrize("keep_open", [False, True], ids=["alone", "beside-an-open-broker"])
def test_killed_writers_lose_and_invent_nothing(tmp_path, keep_open):
    crash_rounds(tmp_path, 2, keep_open, seed=1)  # two writers killed in each round


@pytest.mark.slow
@pytest.mark.parametrize("keep_open", [False, True])
def test_killed_writers_for_long(tmp_path, keep_open):
    crash_rounds(tmp_path, 40, keep_open, seed=2)


def test_killed_reader_disturbs_nobody(tmp_path, read):
    with penstock.open(tmp_path) as broker:
        topic = broker.create_topic("t")
        for n in range(100):
            topic.append(b"%d" % n)
        for turn in range(2):
            assert kill_after(start(READER, tmp_path, ""), 0.05 * turn)
            topic.append(b"after")
        assert [offset for offset, _ in read(broker)] == list(range(102))
