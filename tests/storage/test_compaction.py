"""Compaction: the newest record of each key stays, offsets never change, and a kill leaves the old or the new."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from children import Child

import penstock
from penstock import InvalidArgumentError, InvalidConfigError, TopicPartition
from penstock.storage.compaction import compact

PLACE = TopicPartition("t", 0)
Records = list[tuple[int, bytes | None, bytes | None]]


def make(broker: penstock.Broker, **config: object) -> penstock.Topic:
    return broker.create_topic("t", **{"cleanup_policy": "compact", "segment_bytes": 1 << 20, **config})


def fill(broker: penstock.Broker, count: int, seed: int, keys: int = 200, **options: object) -> Records:
    generator = random.Random(seed)
    start = broker.topic("t").log(0).log_end_offset
    records: Records = []
    with broker.producer(batch_size=4096, **options) as producer:
        for n in range(count):
            key = b"key-%d" % generator.randrange(keys)
            value = None if generator.random() < 0.1 else b"%d-" % n + generator.randbytes(generator.randrange(150))
            producer.send("t", value, key=key)
            records.append((start + n, key, value))
    return records


def newest(records: Records) -> Records:
    last = {key: record for record in records for key in [record[1]]}
    return sorted(last.values())


def read(broker: penstock.Broker, start: int = 0) -> Records:
    found: Records = []
    with broker.consumer() as consumer:
        consumer.assign([PLACE])
        consumer.seek(PLACE, start)
        while records := consumer.poll(timeout=0, max_records=5000):
            found += [(record.offset, record.key, record.value) for record in records]
    return found


@pytest.mark.parametrize("codec", ["none", "lz4", "gzip"])
def test_the_newest_of_each_key_stays(tmp_path: Path, codec: str) -> None:
    with penstock.open(tmp_path / "data") as broker:
        make(broker)
        records: Records = []
        for turn in range(3):
            records += fill(broker, 12_000, turn, compression_type=codec)
            done = broker.compact("t")[PLACE]
            assert read(broker) == newest(records)
            assert done.records_kept == len(newest(records)) and done.bytes_after < done.bytes_before
            middle = 6000 + 12_000 * turn
            assert [record for record in newest(records) if record[0] >= middle] == read(broker, middle)
        assert broker.topic("t").log(0).log_end_offset == 36_000
        with broker.consumer("t") as consumer:
            seen = []
            while batches := consumer.poll_batches(timeout=0):
                seen += [pair for batch in batches for pair in zip(batch.offsets, batch.keys(), strict=True)]
        assert [(int(offset), key) for offset, key in seen] == [record[:2] for record in newest(records)]
        for offset in range(0, 36_000, 997):
            assert read(broker, offset) == [record for record in newest(records) if record[0] >= offset]
    assert penstock.verify(tmp_path / "data").problems == []
    with penstock.open(tmp_path / "data") as broker:
        assert read(broker) == newest(records)


def test_when_memory_is_short_it_goes_as_far_as_it_can(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        log = make(broker).log(0)
        records = fill(broker, 30_000, 1, keys=20_000)
        log.roll_active()
        for _ in range(40):
            if compact(log, 0, force=True, map_bytes=1 << 17) is None:
                break
        assert read(broker) == newest(records)


def test_headers_and_control_batches_stay(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        make(broker)
        with broker.producer(transactional_id="x") as producer:
            for turn in range(4):
                producer.begin_transaction()
                producer.send("t", b"%d" % turn, key=b"a", headers=[("h", b"%d" % turn)])
                producer.send("t", b"%d" % turn, key=b"b-%d" % turn)
                (producer.abort_transaction if turn == 3 else producer.commit_transaction)()
        broker.compact("t")
        with broker.consumer("t", isolation_level="read_committed") as consumer:
            found = [(record.key, record.value, record.headers) for record in consumer.poll(timeout=0)]
        assert found == [
            (b"b-0", b"0", []), (b"b-1", b"1", []), (b"a", b"2", [("h", b"2")]), (b"b-2", b"2", []),
        ]  # fmt: skip
    assert penstock.verify(tmp_path / "data").problems == []


def test_tombstones_go_after_their_time(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        topic = make(broker, delete_retention_ms=1000, retention_ms=-1)
        topic.append(b"value", key=b"k")
        topic.append(None, key=b"k")
        broker.compact("t")
        assert read(broker) == [(1, b"k", None)]
        clock.advance(5)
        topic.append(b"other", key=b"o")
        broker.compact("t")
        assert read(broker) == [(2, b"o", b"other")]


def test_it_comes_by_itself_when_enough_is_dirty(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        topic = make(broker, min_compaction_lag_ms=60_000)
        records = fill(broker, 30_000, 1)
        topic.log(0).roll_active()
        broker.maintain()
        assert len(read(broker)) == 30_000  # too young
        clock.advance(61)
        broker.maintain()
        assert read(broker) == newest(records)
        records += fill(broker, 100, 2)
        topic.log(0).roll_active()
        clock.advance(61)
        broker.alter_topic("t", min_cleanable_dirty_ratio=1.0)
        broker.maintain()
        assert len(read(broker)) > len(newest(records))  # too little of it is dirty
        broker.alter_topic("t", max_compaction_lag_ms=30_000)
        broker.maintain()
        assert read(broker) == newest(records)


def test_compact_and_delete(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        make(broker, cleanup_policy="compact,delete", retention_ms=3_600_000)
        fill(broker, 20_000, 1)
        broker.compact("t")
        assert read(broker)
        clock.advance(7200)
        broker.maintain()
        assert read(broker) == []


def test_readers_go_on_meanwhile(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker, penstock.open(tmp_path / "data") as other:
        make(broker)
        records = fill(broker, 20_000, 1)
        consumer = other.consumer("t")
        seen = [record.offset for record in consumer.poll(max_records=7000, timeout=0)]
        assert seen == list(range(7000))
        broker.compact("t")
        broker.compact("t")
        records += fill(broker, 5000, 2)
        while found := consumer.poll(timeout=0, max_records=5000):
            seen += [record.offset for record in found]
        assert seen == sorted(set(seen))
        assert {record[0] for record in newest(records)} <= set(seen)
        consumer.close()


def test_records_without_a_key_are_refused(tmp_path: Path) -> None:
    import numpy as np

    with penstock.open(tmp_path / "data") as broker:
        topic = make(broker)
        with broker.producer() as producer:
            for call in (
                lambda: topic.append(b"v"),
                lambda: producer.send("t", b"v"),
                lambda: producer.send_many("t", [b"v"]),
                lambda: producer.send_many("t", [b"v", b"w"], keys=[b"k", None]),
                lambda: producer.send_array("t", np.zeros((2, 3), np.uint8)),
            ):
                with pytest.raises(InvalidArgumentError, match="compacted"):
                    call()
        broker.create_topic("plain")
        with pytest.raises(InvalidConfigError, match="cleanup_policy"):
            broker.compact("plain")


def segment_bases(path: Path) -> list[int]:
    return sorted(int(found.stem) for found in (path / "t-0").glob("*.log"))


def test_small_neighbours_become_one_segment(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        log = make(broker).log(0)
        records: Records = []
        for turn in range(6):
            records += fill(broker, 3000, turn)
            log.roll_active()
        assert len(segment_bases(tmp_path / "data")) >= 6
        assert broker.compact("t")[PLACE].records_kept == 200
        assert segment_bases(tmp_path / "data") == [0, 18_000]
        assert read(broker) == newest(records)
        found = log.offset_for_timestamp(0)
        assert found is not None and found[0] == newest(records)[0][0]
        assert broker.compact("t") == {}
    assert penstock.verify(tmp_path / "data").problems == []


def test_a_merged_segment_is_no_longer_than_segments_may_be(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        log = make(broker).log(0)
        records: Records = []
        for turn in range(10):
            records += fill(broker, 4000, turn, keys=20_000)
            log.roll_active()
        before = segment_bases(tmp_path / "data")
        broker.compact("t")
        after = segment_bases(tmp_path / "data")
        assert 2 < len(after) < len(before)
        sizes = [(tmp_path / "data" / "t-0" / f"{base:020d}.log").stat().st_size for base in after]
        assert max(sizes) <= 1 << 20
        assert all(sum(pair) > 1 << 20 for pair in itertools.pairwise(sizes[:-1]))
        assert read(broker) == newest(records)
    assert penstock.verify(tmp_path / "data").problems == []


def test_what_may_not_be_compacted_yet_ends_what_is(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        topic = make(broker, min_compaction_lag_ms=60_000)
        log = topic.log(0)
        for age_s, value in ((100, b"1"), (0, b"2"), (100, b"3")):  # the middle one is too young
            for _ in range(2):
                topic.append(value, key=b"k", timestamp_ms=clock.time_ms() - age_s * 1000)
            log.roll_active()
        broker.compact("t")
        assert [record[0] for record in read(broker)] == [1, 2, 3, 4, 5]
        clock.advance(100)
        broker.compact("t")
        assert [record[0] for record in read(broker)] == [5]


def fill_transactions(broker: penstock.Broker, segments: int, size: int) -> None:
    """In each segment a committed and an aborted transaction, with the same keys."""
    log = broker.topic("t").log(0)
    with broker.producer(transactional_id="x") as producer:
        for turn in range(segments):
            for committed in (True, False):
                producer.begin_transaction()
                for n in range(size):
                    producer.send("t", b"%d-%d" % (turn, n) if committed else b"aborted", key=b"%d" % (turn * 7 + n))
                (producer.commit_transaction if committed else producer.abort_transaction)()
            log.roll_active()


def read_committed(broker: penstock.Broker) -> dict[bytes | None, bytes | None]:
    with broker.consumer("t", isolation_level="read_committed") as consumer:
        found: dict[bytes | None, bytes | None] = {}
        while records := consumer.poll(timeout=0, max_records=5000):
            found.update((record.key, record.value) for record in records)
        return found


def test_aborted_transactions_stay_so_when_segments_are_merged(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        make(broker)
        fill_transactions(broker, 4, 30)
        expected = read_committed(broker)
        assert b"aborted" not in expected.values()
        # the last aborted records are not compacted yet: their transaction ends behind one that is still open
        with broker.producer(transactional_id="y") as open_producer:
            open_producer.begin_transaction()
            open_producer.send("t", b"open", key=b"open")
            open_producer.flush()
            fill_transactions(broker, 1, 30)
            broker.compact("t")
            assert read_committed(broker) == expected
            open_producer.abort_transaction()
        expected = read_committed(broker)
        broker.compact("t")
        assert read_committed(broker) == expected
        assert len(segment_bases(tmp_path / "data")) == 2
    with penstock.open(tmp_path / "data") as broker:
        assert read_committed(broker) == expected
    assert penstock.verify(tmp_path / "data").problems == []


def test_a_reader_of_a_merged_segment_goes_on(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker, penstock.open(tmp_path / "data") as other:
        log = make(broker).log(0)
        records: Records = []
        for turn in range(5):
            records += fill(broker, 1000, turn)
            log.roll_active()
        consumers = []
        for start in range(0, 5000, 500):  # each holds on to a segment that will be gone
            consumer = other.consumer()
            consumer.assign([PLACE])
            consumer.seek(PLACE, start)
            consumers.append((consumer, [record.offset for record in consumer.poll(max_records=10, timeout=0)]))
        broker.compact("t")
        for consumer, seen in consumers:
            first = seen[0]
            while found := consumer.poll(timeout=0, max_records=5000):
                seen += [record.offset for record in found]
            assert seen == sorted(set(seen))
            assert {record[0] for record in newest(records) if record[0] >= first} <= set(seen)
            consumer.close()


STEP = """
import os, signal, sys, penstock
broker = penstock.open(sys.argv[1])
left = int(sys.argv[2])
def count(event, args):
    global left
    if event in ("os.rename", "os.remove", "os.truncate") and "t-0" in str(args[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
broker.compact("t")
os._exit(0)
"""


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_each_step_of_a_merge(tmp_path: Path, stride: int) -> None:
    with penstock.open(tmp_path / "template") as broker:
        log = make(broker).log(0)
        fill_transactions(broker, 3, 40)
        records = fill(broker, 500, 1)
        log.roll_active()
        expected = read_committed(broker)
    step, merged = 0, 0
    while True:
        path = tmp_path / f"data-{step}"
        shutil.copytree(tmp_path / "template", path)
        with penstock.open(path) as broker:
            consumer = broker.consumer("t", isolation_level="read_committed")
            found = {record.key: record.value for record in consumer.poll(timeout=0, max_records=5)}
            code = Child(STEP, path, step).wait(60)
            merged += (path / "t-0" / "penstock.cleaner.merge").exists()
            assert read_committed(broker) == expected  # beside what the dead left
            while more := consumer.poll(timeout=0, max_records=5000):
                found.update((record.key, record.value) for record in more)
            assert found == expected
            consumer.close()
            for start in range(0, records[-1][0], 97):
                left = [record for record in newest(records) if record[0] >= start]
                assert [record for record in read(broker, start) if record in left] == left
            if step // stride % 2:
                broker.compact("t")
                assert read_committed(broker) == expected
            else:
                assert penstock.verify(path).ok or code
        with penstock.open(path) as broker:
            assert read_committed(broker) == expected
            assert not (path / "t-0" / "penstock.cleaner.merge").exists()
            broker.compact("t")
            assert read_committed(broker) == expected
            assert len(segment_bases(path)) == 2
        assert penstock.verify(path).problems == []
        shutil.rmtree(path)
        if code == 0:
            break
        step += stride
    assert merged >= 8 // stride and step > merged * stride  # steps in which a merge was under way


KILLED = """
import sys, penstock
broker = penstock.open(sys.argv[1])
print("ready", flush=True)
while True:
    broker.topic("t").log(0).roll_active()
    broker.compact("t")
    with broker.producer() as producer:
        for n in range(3000):
            producer.send("t", b"%d" % n, key=b"more-%d" % (n % 50))
"""


def run_kills(path: Path, kills: int, seed: int) -> None:
    generator = random.Random(seed)
    with penstock.open(path) as broker:
        make(broker)
        expected = newest(fill(broker, 20_000, seed))
    kept = set(expected)
    for _ in range(kills):
        process = Child(KILLED, path, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(generator.random() * 0.1)
        process.kill()
        process.wait()
        with penstock.open(path) as broker:
            found = read(broker)
            assert [record for record in found if record in kept] == expected
            more = [record[1] for record in found if record[1] and record[1].startswith(b"more-")]
            assert not more or len(set(more)) == 50
    with penstock.open(path) as broker:
        broker.compact("t")
        left = [record for record in read(broker) if not (record[1] or b"").startswith(b"more-")]
        assert left == expected
    assert penstock.verify(path).problems == []


def test_a_kill_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    run_kills(tmp_path / "data", 6, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_kill_leaves_the_old_or_the_new_for_long(tmp_path: Path, seed: int) -> None:
    run_kills(tmp_path / "data", 100, seed)
