"""The full batches of one `send_many` are stored by one system call, and are as if each had come alone."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from children import Child

import penstock

VALUES = [b"%09d" % number * 10 for number in range(20_000)]


def read_values(broker: penstock.Broker, topic: str = "t", partition: int | None = None) -> list[bytes]:
    with broker.consumer() as consumer:
        numbers = range(broker.topic(topic).partitions) if partition is None else [partition]
        consumer.assign([penstock.TopicPartition(topic, number) for number in numbers])
        consumer.seek_to_beginning()
        out = []
        while records := consumer.poll(timeout=0, max_records=100_000):
            out += [record.value for record in records]
        return out


@pytest.mark.parametrize("segment_bytes", [1 << 30, 1 << 20])
@pytest.mark.parametrize("batch_size", [1 << 10, 1 << 15, 1 << 19])
@pytest.mark.parametrize("options", [{}, {"name": "numbered"}, {"compression_type": "lz4"}])
def test_every_record_once_in_order(broker, segment_bytes, batch_size, options):
    broker.create_topic("t", segment_bytes=segment_bytes)
    values = VALUES if batch_size > 1 << 10 else VALUES[:2000]
    with broker.producer(batch_size=batch_size, **options) as producer:
        producer.send_many("t", values)
        assert producer.buffered_bytes < 2 * batch_size  # only the open batch waits after the call
        producer.send_many("t", values)
    assert read_values(broker) == values * 2


def test_a_batch_a_batch(broker):
    broker.create_topic("t")
    with broker.producer(batch_size=1 << 14) as producer:
        producer.send_many("t", VALUES)
    with broker.consumer() as consumer:
        consumer.assign([penstock.TopicPartition("t", 0)])
        consumer.seek_to_beginning()
        sizes = [len(part) for part in consumer.poll_batches(timeout=0, max_bytes=1)]
    assert sum(sizes) < len(VALUES) and max(sizes) <= (1 << 14) // 90


def test_with_other_writers_in_between(broker):
    broker.create_topic("t")

    def send(letter: bytes) -> None:
        with broker.producer(batch_size=1 << 13) as producer:
            for first in range(0, 20_000, 5_000):
                producer.send_many("t", [letter + value for value in VALUES[first : first + 5_000]])

    threads = [threading.Thread(target=send, args=(bytes([65 + number]),)) for number in range(3)]
    for thread in threads:
        thread.start()
    append = broker.topic("t").append
    for number in range(500):
        append(b"Z%d" % number)
    for thread in threads:
        thread.join()
    stored = read_values(broker)
    for letter in b"ABC":
        assert [value[1:] for value in stored if value[0] == letter] == VALUES
    assert [value for value in stored if value[0] == ord("Z")] == [b"Z%d" % number for number in range(500)]


def test_a_fenced_producer_stores_nothing_of_a_run(broker):
    broker.create_topic("t")
    first = broker.producer(transactional_id="one", batch_size=1 << 14)
    first.begin_transaction()
    first.send_many("t", VALUES[:100])
    first.flush()
    end = len(read_values(broker))
    second = broker.producer(transactional_id="one")
    with pytest.raises(penstock.FencedError):
        first.send_many("t", VALUES)
    assert len(read_values(broker)) == end
    (log,) = (Path(broker.path) / "t-0").glob("*.log")
    assert VALUES[500] not in log.read_bytes()  # nor past its end, where a power cut would bring it back
    second.close()
    first.purge()
    first.close()


SENDER = """
import sys, penstock
values = [b"%09d" % number * 10 for number in range(1_000_000)]
broker = penstock.open(sys.argv[1], fsync="never")
with broker.producer(name="sender", batch_size=1 << 14) as producer:
    at = producer.last_sequence(penstock.TopicPartition("t", 0)) + 1
    print(at, flush=True)
    while True:
        producer.send_many("t", values[at : at + 30_000])
        at += 30_000
"""


def test_killed_in_a_run(tmp_path: Path):
    with penstock.open(tmp_path, fsync="never") as broker:
        broker.create_topic("t")
    generator = random.Random(1)
    for _ in range(4):
        child = Child(SENDER, tmp_path, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        threading.Event().wait(generator.uniform(0.01, 0.06))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    with penstock.open(tmp_path) as broker:
        stored = read_values(broker)
        assert stored == [b"%09d" % number * 10 for number in range(len(stored))]
        assert len(stored) > 1000
