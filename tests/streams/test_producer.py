"""The producer: order, partitions, batching, failures, threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock._native.murmur2 import partition_for_key
from penstock.storage.partition_log import PartitionLog


def read_all(broker: penstock.Broker, topic: str = "t") -> list[penstock.Record]:
    with broker.consumer(topic) as consumer:
        found = []
        while records := consumer.poll(max_records=100_000, timeout=0):
            found += records
        return found


class FullDisk:
    """Makes appends fail while `full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        reserve = PartitionLog._refresh_writer

        def refresh(log: PartitionLog, batch_bytes: int) -> None:
            if self.full:
                raise penstock.DiskFullError(28, "no room (injected)")
            reserve(log, batch_bytes)

        monkeypatch.setattr(PartitionLog, "_refresh_writer", refresh)


def test_send_keeps_everything(broker: penstock.Broker) -> None:
    broker.create_topic("t", partitions=3)
    with broker.producer() as producer:
        producer.send("t", b"v", key=b"k", headers=[("h", b"1"), ("n", None)], timestamp_ms=5)
        producer.send("t", None, key=b"k2", partition=1)
        producer.send("t", bytearray(b"b"), key=memoryview(b"m"))
        producer.send("t", b"")
    records = {record.value: record for record in read_all(broker)}
    first = records[b"v"]
    assert (first.key, first.headers, first.timestamp_ms) == (b"k", [("h", b"1"), ("n", None)], 5)
    assert first.partition == partition_for_key(b"k", 3)
    assert (records[None].key, records[None].partition) == (b"k2", 1)
    assert records[b"b"].key == b"m"
    assert records[b""].key is None


def test_order_within_a_partition(broker: penstock.Broker) -> None:
    broker.create_topic("t")
    values = [b"%d" % n for n in range(20_000)]
    with broker.producer(batch_size=4096) as producer:
        for value in values[:5000]:
            producer.send("t", value)
        assert producer.send_many("t", values[5000:15_000]) == 10_000
        assert producer.send_many("t", iter(values[15_000:])) == 5000
    assert [record.value for record in read_all(broker)] == values


@pytest.mark.parametrize("codec", ["none", "gzip", "lz4", "zstd", "snappy"])
def test_codecs(broker: penstock.Broker, codec: str) -> None:
    broker.create_topic("t")
    values = [b'{"n": %d}' % n for n in range(3000)]
    with broker.producer(compression_type=codec) as producer:
        producer.send_many("t", values)
    assert [record.value for record in read_all(broker)] == values


def test_keys_of_send_many(broker: penstock.Broker) -> None:
    broker.create_topic("t", partitions=4)
    keys = [b"key-%d" % (n % 50) for n in range(1000)]
    with broker.producer() as producer:
        assert producer.send_many("t", [b"v"] * 1000, keys=keys) == 1000
    for record in read_all(broker):
        assert record.key is not None
        assert record.partition == partition_for_key(record.key, 4)


def test_without_a_key_batches_spread(broker: penstock.Broker) -> None:
    broker.create_topic("t", partitions=3)
    with broker.producer(batch_size=1024) as producer:
        for _ in range(3000):
            producer.send("t", b"x" * 50)
    assert {record.partition for record in read_all(broker)} == {0, 1, 2}


def test_custom_partitioner(broker: penstock.Broker) -> None:
    broker.create_topic("t", partitions=3)
    with broker.producer(partitioner=lambda topic, key, value, partitions: partitions - 1) as producer:
        producer.send_many("t", [b"a", b"b"])
        producer.send("t", b"c", key=b"k")
    assert {record.partition for record in read_all(broker)} == {2}


def test_on_delivery(broker: penstock.Broker) -> None:
    broker.create_topic("t")
    seen: list[Any] = []
    with broker.producer(linger_ms=10_000) as producer:
        for n in range(3):
            producer.send(
                "t", b"%d" % n, timestamp_ms=n, on_delivery=lambda error, metadata: seen.append((error, metadata))
            )
        assert seen == []
        assert producer.buffered_records == 3
    assert [(error, metadata.offset, metadata.timestamp_ms) for error, metadata in seen] == [
        (None, 0, 0),
        (None, 1, 1),
        (None, 2, 2),
    ]


def test_linger_stores_in_the_background(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        broker.create_topic("t")
        stored = threading.Event()
        with broker.producer(linger_ms=50) as producer:
            producer.send("t", b"v", on_delivery=lambda error, metadata: stored.set())
            assert not stored.wait(0.02)
            clock.advance(0.051)
            assert stored.wait(10)
        assert read_all(broker)[0].timestamp_ms == 1_577_836_800_000


def test_linger_zero_stores_at_once(broker: penstock.Broker) -> None:
    broker.create_topic("t")
    with broker.producer(linger_ms=0) as producer:
        producer.send("t", b"v")
        assert len(read_all(broker)) == 1


def test_a_failure_keeps_what_was_accepted(broker: penstock.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    broker.create_topic("t")
    producer = broker.producer(batch_size=1024, linger_ms=10_000)
    disk.full = True
    accepted = []
    for n in range(100):
        try:
            producer.send("t", b"%04d" % n * 10)
            accepted.append(b"%04d" % n * 10)
        except penstock.DiskFullError as error:
            assert error.retriable
    assert 0 < len(accepted) < 100
    with pytest.raises(penstock.DiskFullError):
        producer.flush()
    with pytest.raises(penstock.DiskFullError):
        producer.close()
    assert producer.buffered_records == len(accepted)
    disk.full = False
    producer.send("t", b"after")
    producer.close()
    assert [record.value for record in read_all(broker)] == [*accepted, b"after"]


def test_send_many_tells_how_far_it_came(broker: penstock.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    broker.create_topic("t")
    values = [b"%06d" % n for n in range(5000)]
    with broker.producer(batch_size=1024, linger_ms=10_000) as producer:
        disk.full = True
        with pytest.raises(penstock.DiskFullError) as caught:
            producer.send_many("t", values)
        disk.full = False
        producer.send_many("t", values[caught.value.accepted :])  # type: ignore[attr-defined]
    assert [record.value for record in read_all(broker)] == values


def test_purge_gives_up(broker: penstock.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    broker.create_topic("t")
    seen: list[Any] = []
    producer = broker.producer(linger_ms=10_000)
    disk.full = True
    producer.send("t", b"v", on_delivery=lambda error, metadata: seen.append((error, metadata)))
    assert producer.purge() == 1
    assert isinstance(seen[0][0], penstock.ClosedError)
    assert seen[0][1] is None
    producer.close()
    disk.full = False
    assert read_all(broker) == []


def test_closing_the_broker_with_a_failing_producer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    broker = penstock.open(tmp_path / "data")
    broker.create_topic("t")
    producer = broker.producer(linger_ms=10_000)
    producer.send("t", b"v")
    disk.full = True
    with pytest.raises(penstock.DiskFullError):
        broker.close()
    assert broker.closed
    assert producer.closed


def test_many_threads(broker: penstock.Broker) -> None:
    broker.create_topic("t", partitions=2)
    with broker.producer(batch_size=2048) as producer:

        def work(name: int) -> None:
            for n in range(3000):
                producer.send("t", b"%d:%d" % (name, n), partition=name % 2)
            producer.send_many("t", [b"%d:%d" % (name, n) for n in range(3000, 6000)], partition=name % 2)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seen: dict[bytes, list[int]] = {}
    for record in read_all(broker):
        assert record.value is not None
        name, n = record.value.split(b":")
        seen.setdefault(name, []).append(int(n))
    assert len(seen) == 4
    assert all(numbers == list(range(6000)) for numbers in seen.values())


def test_bounded_memory(broker: penstock.Broker) -> None:
    broker.create_topic("t", partitions=50)
    with broker.producer(batch_size=65536, buffer_memory=1 << 16, linger_ms=10_000) as producer:
        for n in range(5000):
            producer.send("t", b"x" * 1000, partition=n % 50)
            assert producer.buffered_bytes < (1 << 16) + 1100 + 50 * 61  # each open batch has a header


def test_log_append_time(tmp_path: Path) -> None:
    clock = penstock.VirtualClock(start_ms=1000)
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        topic = broker.create_topic("t", message_timestamp_type="LogAppendTime")
        assert topic.append(b"a", timestamp_ms=5).timestamp_ms == 1000
        with broker.producer(linger_ms=10_000) as producer:
            producer.send("t", b"b", timestamp_ms=7)
            clock.advance(2)
        assert [record.timestamp_ms for record in read_all(broker)] == [1000, 3000]


@pytest.mark.parametrize("dtype", ["S8", "uint8", "ranges"])
def test_arrays(broker: penstock.Broker, dtype: str) -> None:
    broker.create_topic("t")
    values = [b"%08d" % n for n in range(10_000)]
    array: Any = np.array(values)
    if dtype == "uint8":
        array = array.view(np.uint8).reshape(-1, 8)
    elif dtype == "ranges":
        array = (b"".join(values), np.arange(0, 80_001, 8))
    with broker.producer(batch_size=4096) as producer:
        assert producer.send_array("t", array) == 10_000
    assert [record.value for record in read_all(broker)] == values


BAD_SENDS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"value": "text"}, TypeError),
    ({"value": 5}, TypeError),
    ({"value": memoryview(b"abcdef")[::2]}, TypeError),
    ({"value": b"v", "key": "text"}, TypeError),
    ({"value": b"v", "headers": [("h", "text")]}, TypeError),
    ({"value": b"v", "headers": b"h"}, TypeError),
    ({"value": b"v", "timestamp_ms": -1}, ValueError),
    ({"value": b"v", "timestamp_ms": "now"}, TypeError),
    ({"value": b"v", "partition": 3}, penstock.UnknownTopicError),
    ({"value": b"v", "partition": -1}, penstock.UnknownTopicError),
    ({"value": b"v", "partition": "0"}, TypeError),
    ({"value": b"v", "on_delivery": 5}, TypeError),
    ({"value": b"v" * 1_048_577}, penstock.RecordTooLargeError),
]


@pytest.mark.parametrize(("arguments", "error"), BAD_SENDS)
def test_bad_input_is_refused_before_anything_is_written(
    broker: penstock.Broker, arguments: dict[str, Any], error: type[Exception]
) -> None:
    topic = broker.create_topic("t", partitions=3)
    with broker.producer() as producer:
        with pytest.raises(error) as caught:
            producer.send("t", **arguments)
        assert isinstance(caught.value, penstock.PenstockError)
        if "on_delivery" not in arguments:
            with pytest.raises(error):
                topic.append(**arguments)
    assert read_all(broker) == []


def test_bad_calls(broker: penstock.Broker) -> None:
    broker.create_topic("t")
    with broker.producer() as producer:
        for call, error in [
            (lambda: producer.send("unknown", b"v"), penstock.UnknownTopicError),
            (lambda: producer.send("../etc", b"v"), penstock.InvalidNameError),
            (lambda: producer.send(7, b"v"), penstock.InvalidNameError),  # type: ignore[arg-type]
            (lambda: producer.send_many("t", b"bytes"), TypeError),  # type: ignore[arg-type]
            (lambda: producer.send_many("t", [b"a", "b"]), TypeError),  # type: ignore[list-item]
            (lambda: producer.send_many("t", [b"a"], keys=[]), ValueError),
            (lambda: producer.send_array("t", np.zeros((2, 2)), None), TypeError),
            (lambda: producer.send_array("t", (b"abc", np.array([0, 9]))), ValueError),
        ]:
            with pytest.raises(error) as caught:
                call()
            assert isinstance(caught.value, penstock.PenstockError)
    assert read_all(broker) == []
    with pytest.raises(penstock.ClosedError):
        producer.send("t", b"v")
    producer.close()


@pytest.mark.parametrize(
    "options",
    [{"linger_ms": -1}, {"batch_size": 0}, {"compression_type": "rar"}, {"partitioner": 1}, {"buffer_memory": "1"}],
)
def test_bad_options(broker: penstock.Broker, options: dict[str, Any]) -> None:
    with pytest.raises(penstock.InvalidConfigError):
        broker.producer(**options)


def test_altered_topic_is_noticed(broker: penstock.Broker) -> None:
    broker.create_topic("t")
    with broker.producer(linger_ms=10_000) as producer:
        producer.send("t", b"before")
        broker.alter_topic("t", partitions=3, max_message_bytes=10)
        producer.send("t", b"after", partition=2)
        with pytest.raises(penstock.RecordTooLargeError):
            producer.send("t", b"x" * 11)
    assert {record.value: record.partition for record in read_all(broker)} == {b"before": 0, b"after": 2}


def test_threads_that_send_first_at_once_number_their_batches_together(broker) -> None:
    broker.create_topic("many", partitions=4)
    for attempt in range(10):
        producer = broker.producer(name=f"named-{attempt}", linger_ms=0)
        ready = threading.Barrier(8)
        failed: list[Exception] = []

        def send(producer=producer, ready=ready, failed=failed) -> None:
            ready.wait()
            try:
                for _ in range(20):
                    producer.send("many", b"v", partition=0)
            except penstock.PenstockError as error:
                failed.append(error)
                producer.purge()

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        producer.close()
    assert broker.topic("many").log(0).log_end_offset == 10 * 8 * 20
