"""`Topic.append` at an expected offset, `append_batch` and `read`."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

import penstock
from penstock._native.builder import EncodedHeaders


def test_append_at_the_expected_offset(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t")
    assert topic.append(b"a", expected_offset=0).offset == 0
    with pytest.raises(penstock.ConcurrencyError, match="expected_offset is 0; t-0 ends at 1") as caught:
        topic.append(b"b", expected_offset=0)
    assert caught.value.actual_offset == 1
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.actual_offset, copy.actual_version) == (1, None)
    assert topic.append(b"c", expected_offset=1).offset == 1
    assert [record.value for record in topic.read([0, 1])] == [b"a", b"c"]


def test_expected_offset_names_a_partition(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", partitions=2)
    with pytest.raises(penstock.InvalidArgumentError, match="needs a partition or a key"):
        topic.append(b"a", expected_offset=0)
    assert topic.append(b"a", partition=1, expected_offset=0).partition == 1
    for bad, error in ((-1, ValueError), (True, TypeError), ("0", TypeError)):
        with pytest.raises(error, match="expected_offset is"):
            topic.append(b"a", partition=0, expected_offset=bad)  # type: ignore[arg-type]
    assert topic.log(0).log_end_offset + topic.log(1).log_end_offset == 1


def test_one_of_many_writers_wins_each_offset(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t")
    won: list[int] = []

    def write(handle: penstock.Topic) -> None:
        for offset in range(300):
            try:
                won.append(handle.append(b"%d" % offset, expected_offset=offset).offset)
            except penstock.ConcurrencyError as error:
                assert error.actual_offset is not None and error.actual_offset != offset

    threads = [threading.Thread(target=write, args=(broker.topic("t"),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(300))
    assert [record.value for record in topic.read(range(300))] == [b"%d" % n for n in range(300)]


def test_append_across_a_roll_expects_the_same(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", segment_bytes=1 << 20)
    value = bytes(300_000)
    for offset in range(8):
        assert topic.append(value, expected_offset=offset).offset == offset
        with pytest.raises(penstock.ConcurrencyError):
            topic.append(value, expected_offset=offset)
    assert len(topic.log(0).segments()) > 1


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_batch_is_stored_as_one(broker: penstock.Broker, codec: str) -> None:
    topic = broker.create_topic("t", partitions=2, compression_type=codec)
    values = [b"%d" % n * 50 for n in range(100)]
    headers = [None, [("h", b"1")], EncodedHeaders([("e", None)]), []] * 25
    first = topic.append_batch(values, [b"k"] * 100, headers, timestamp_ms=7, partition=1, expected_offset=0)
    assert first == penstock.RecordMetadata("t", 1, 0, 7)
    assert topic.append_batch([b"x", None], partition=1).offset == 100
    records = topic.read(list(range(102)), partition=1)
    assert [record.value for record in records] == [*values, b"x", None]
    assert [record.offset for record in records] == list(range(102))
    assert [record.headers for record in records[:4]] == [[], [("h", b"1")], [("e", None)], []]
    assert {(record.key, record.timestamp_ms) for record in records[:100]} == {(b"k", 7)}
    with broker.consumer("t") as consumer:
        assert [batch.count for batch in consumer.poll_batches(timeout=0)] == [100, 2]


def test_a_batch_is_stored_whole_or_not(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", max_message_bytes=1000)
    refused: list[tuple[tuple[object, ...], type[Exception], str]] = [
        (([bytes(600), bytes(600)],), penstock.RecordTooLargeError, "1200 bytes.*max_message_bytes=1000"),
        (([],), ValueError, "values is empty"),
        ((b"abc",), TypeError, "values is bytes"),
        ((7,), TypeError, "values is int"),
        (([b"a", "b"],), TypeError, r"values\[1\] is str"),
        (([b"a"], [b"k", b"l"]), ValueError, "keys has 2 items; there are 1 values"),
        (([b"a"], [1]), TypeError, r"keys\[0\] is int"),
        (([b"a"], None, [[("h", 1)]]), TypeError, r"headers\[0\]"),
        (([b"a"], None, None, -1), ValueError, "timestamp_ms is -1"),
        (([b"a"], None, None, None, 1), KeyError, "partition is 1"),
        (([b"a"], None, None, None, 0, 3), penstock.ConcurrencyError, "ends at 0"),
    ]
    for arguments, error, message in refused:
        with pytest.raises(error, match=message):
            topic.append_batch(*arguments)  # type: ignore[arg-type]
    assert topic.log(0).log_end_offset == 0
    assert topic.append_batch((bytearray(b"a"), memoryview(b"b"))).offset == 0  # type: ignore[arg-type]
    assert [record.value for record in topic.read([0, 1])] == [b"a", b"b"]


def test_a_compacted_topic_needs_keys(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", cleanup_policy="compact")
    for keys in (None, [None]):
        with pytest.raises(penstock.InvalidArgumentError, match="key is None"):
            topic.append_batch([b"a"], keys)
    assert topic.append_batch([b"a"], [b"k"]).offset == 0


def test_log_append_time(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", message_timestamp_type="LogAppendTime")
    first = topic.append_batch([b"a", b"b"], timestamp_ms=5)
    assert first.timestamp_ms > 5
    assert {record.timestamp_ms for record in topic.read([0, 1])} == {first.timestamp_ms}


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_read_here_and_there(broker: penstock.Broker, codec: str) -> None:
    topic = broker.create_topic("t", segment_bytes=1 << 20, compression_type=codec)
    sizes = [1, 3, 17, 400, 33, 1, 2000]
    expected: list[bytes] = []
    random = np.random.default_rng(7)
    for size in sizes * 8:
        values = [bytes(random.integers(0, 256, 100, dtype=np.uint8)) for _ in range(size)]
        topic.append_batch(values)
        expected += values
    assert len(topic.log(0).segments()) > 1
    for picked in (
        np.arange(len(expected)),
        np.sort(random.choice(len(expected), 500, replace=False)),
        random.integers(0, len(expected), 3000),  # in no order, some twice
    ):
        for offsets in (picked.astype(np.int64), picked.tolist(), picked.astype(np.uint32), tuple(picked.tolist())):
            assert [r.value for r in topic.read(offsets)] == [expected[n] for n in picked]  # type: ignore[arg-type]
    assert topic.read([]) == []


def test_read_what_is_not_there(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", partitions=2)
    topic.append_batch([b"a", b"b", b"c"])
    for offsets in ([-1], [3], [0, 2**70]):
        with pytest.raises(penstock.OffsetOutOfRangeError):
            topic.read(offsets)
    for bad in ("012", 3, [b"0"], [None], [True], np.array([0.5])):
        with pytest.raises(penstock.InvalidTypeError, match="offsets"):
            topic.read(bad)  # type: ignore[arg-type]
    with pytest.raises(penstock.UnknownTopicError, match="partition is 2"):
        topic.read([0], partition=2)
    topic.read([1])
    broker.delete_records(penstock.TopicPartition("t", 0), 2)
    with pytest.raises(penstock.OffsetOutOfRangeError, match="allowed is 2 to 2"):
        topic.read([1])
    assert topic.read([2])[0].value == b"c"
    broker.delete_topic("t")
    with pytest.raises(penstock.UnknownTopicError):
        topic.read([2])


def test_read_passes_markers_and_gaps(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", cleanup_policy="compact")
    with broker.producer(transactional_id="x") as producer, producer.transaction():
        producer.send_many("t", [b"1", b"2", b"3"], keys=[b"a", b"b", b"a"])
    assert [record.value for record in topic.read([0, 1, 2])] == [b"1", b"2", b"3"]
    with pytest.raises(penstock.OffsetOutOfRangeError, match="marker of a transaction"):
        topic.read([3])
    topic.append_batch([b"%d" % n for n in range(100)], [b"k%d" % (n % 50) for n in range(100)])
    topic.append(b"end", key=b"end")
    broker.compact("t")
    with pytest.raises(penstock.OffsetOutOfRangeError, match="compaction removed it"):
        topic.read([0])
    kept = [1, 2, *range(54, 104)]
    assert [record.offset for record in topic.read(kept)] == kept
    assert [record.offset for record in topic.read(kept[::-1])] == kept[::-1]


def test_read_from_several_threads(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", compression_type="lz4")
    topic.append_batch([b"%d" % n for n in range(5000)], headers=[[("n", b"%d" % n)] for n in range(5000)])
    wrong: list[object] = []

    def read(seed: int) -> None:
        offsets = np.random.default_rng(seed).integers(0, 5000, 4000)
        records = topic.read(offsets)
        wrong.extend(r for r in records if r.value != b"%d" % r.offset or r.headers != [("n", r.value)])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
