"""Transactions in one process: all or nothing for who reads committed records."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

import penstock
from penstock import FencedError, InvalidArgumentError, InvalidConfigError, TopicPartition, TransactionStateError
from penstock.storage.partition_log import PartitionLog
from penstock.storage.transaction_index import read_entries

PLACES = [TopicPartition("out", number) for number in range(3)]


@pytest.fixture
def out(broker: penstock.Broker) -> penstock.Topic:
    return broker.create_topic("out", partitions=3)


def values(broker: penstock.Broker, committed: bool = True) -> list[bytes]:
    level = "read_committed" if committed else "read_uncommitted"
    with broker.consumer("out", isolation_level=level) as consumer:
        seen: list[bytes] = []
        while records := consumer.poll(timeout=0):
            seen += [record.value for record in records if record.value is not None]
        by_batches: list[bytes] = []
        consumer.seek_to_beginning()
        while batches := consumer.poll_batches(timeout=0):
            by_batches += [value for batch in batches for value in batch.values() if value is not None]
        assert sorted(seen) == sorted(by_batches)
    return sorted(seen)


def spread(producer: penstock.Producer, text: bytes) -> None:
    for place in PLACES:
        producer.send("out", text + b"%d" % place.partition, partition=place.partition)


@pytest.mark.usefixtures("out")
def test_two_that_abort_at_once_are_both_remembered(broker: penstock.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    fstat, others = os.fstat, []
    with broker.producer(transactional_id="a") as one, broker.producer(transactional_id="b") as two:
        for producer in (one, two):
            producer.begin_transaction()
            producer.send("out", b"never seen", partition=0)
            producer.flush()

        def measured(fd: int) -> os.stat_result:
            """The other one aborts while the index's size is known and nothing is added to it."""
            found = fstat(fd)
            if not others:
                others.append(threading.Thread(target=two.abort_transaction))
                others[0].start()
                others[0].join(0.3)
            return found

        monkeypatch.setattr("penstock.storage.transaction_index.os.fstat", measured)
        one.abort_transaction()
        others[0].join()
    entries = read_entries(broker.path / "out-0" / "00000000000000000000.txnindex")
    assert len({entry.producer_id for entry in entries}) == 2
    assert values(broker) == [] and len(values(broker, committed=False)) == 2


@pytest.mark.usefixtures("out")
class TestOneProducer:
    def test_nothing_is_seen_before_the_commit_and_everything_after(self, broker: penstock.Broker) -> None:
        with broker.producer(transactional_id="t") as producer:
            with producer.transaction() as same:
                assert same is producer
                spread(producer, b"a")
                producer.flush()
                assert values(broker) == [] and len(values(broker, committed=False)) == 3
            assert values(broker) == [b"a0", b"a1", b"a2"]

    def test_an_exception_aborts(self, broker: penstock.Broker) -> None:
        with broker.producer(transactional_id="t") as producer:
            with pytest.raises(KeyError), producer.transaction():
                spread(producer, b"a")
                producer.flush()
                spread(producer, b"buffered")
                raise KeyError
            with producer.transaction():
                spread(producer, b"b")
            assert values(broker) == [b"b0", b"b1", b"b2"]
            assert values(broker, committed=False) == [b"a0", b"a1", b"a2", b"b0", b"b1", b"b2"]

    def test_what_others_store_in_between_waits_for_the_decision_but_is_not_lost(self, broker: penstock.Broker) -> None:
        with broker.producer(transactional_id="one") as one, broker.producer(transactional_id="two") as two:
            one.begin_transaction()
            two.begin_transaction()
            spread(one, b"one")
            one.flush()
            broker.topic("out").append(b"plain", partition=0)
            spread(two, b"two")
            two.commit_transaction()
            assert values(broker) == []
            log = broker.topic("out").log(0)
            assert (log.last_stable_offset, log.log_end_offset) == (0, 4)
            one.abort_transaction()
            assert values(broker) == [b"plain", b"two0", b"two1", b"two2"]
            assert log.last_stable_offset == log.log_end_offset

    def test_control_batches_are_never_shown(self, broker: penstock.Broker) -> None:
        with broker.producer(transactional_id="t") as producer:
            for n in range(5):
                with producer.transaction():
                    producer.send("out", b"%d" % n, partition=0)
        with broker.consumer(isolation_level="read_uncommitted") as consumer:
            consumer.assign(PLACES[:1])
            assert [record.offset for record in consumer.poll(timeout=0)] == [0, 2, 4, 6, 8]
            assert consumer.position(PLACES[0]) == 10 and consumer.lag() == {PLACES[0]: 0}

    def test_many_batches_and_compression(self, broker: penstock.Broker) -> None:
        with broker.producer(transactional_id="t", batch_size=512, compression_type="lz4") as producer:
            for n in range(6):
                producer.begin_transaction()
                producer.send_many("out", [b"%d-%03d" % (n, i) for i in range(300)])
                if n % 2:
                    producer.abort_transaction()
                else:
                    producer.commit_transaction()
        assert values(broker) == [b"%d-%03d" % (n, i) for n in (0, 2, 4) for i in range(300)]

    def test_over_rolls_and_a_reopen(self, tmp_path: Path) -> None:
        path = tmp_path / "other"
        with penstock.open(path) as broker:
            broker.create_topic("out", partitions=3, segment_bytes=1 << 20)
            with broker.producer(transactional_id="t") as producer:
                for n in range(8):
                    producer.begin_transaction()
                    for i in range(20):
                        producer.send("out", b"%d-%02d" % (n, i) + bytes(50_000), partition=0)
                    (producer.abort_transaction if n % 2 else producer.commit_transaction)()
            assert len(broker.topic("out").log(0).segments()) > 4
        with penstock.open(path) as broker:
            found = [value[:4] for value in values(broker)]
        assert found == [b"%d-%02d" % (n, i) for n in (0, 2, 4, 6) for i in range(20)]
        assert penstock.verify(path).ok

    def test_wrong_states_are_typed_errors(self, broker: penstock.Broker) -> None:
        with broker.producer() as plain, pytest.raises(TransactionStateError, match="transactional_id"):
            plain.begin_transaction()
        with broker.producer(transactional_id="t") as producer:
            for call in (producer.commit_transaction, producer.abort_transaction):
                with pytest.raises(TransactionStateError):
                    call()
            with pytest.raises(TransactionStateError, match="begin_transaction"):
                producer.send("out", b"v")
            with pytest.raises(TransactionStateError):
                producer.send_many("out", [b"v"])
            producer.begin_transaction()
            with pytest.raises(TransactionStateError, match="is open"):
                producer.begin_transaction()
            producer.send("out", b"dropped by close")
        assert values(broker, committed=False) == []

    @pytest.mark.parametrize(
        "options",
        [
            {"transactional_id": ""}, {"transactional_id": 5}, {"transactional_id": "x" * 61},
            {"transactional_id": "t", "enable_idempotence": False},
            {"transactional_id": "t", "transaction_timeout_ms": 0},
            {"transactional_id": "t", "transaction_timeout_ms": 900_001},
        ],
    )  # fmt: skip
    def test_bad_options(self, broker: penstock.Broker, options: dict[str, object]) -> None:
        with pytest.raises(penstock.PenstockError):
            broker.producer(**options)
        assert broker.transactions() == []

    def test_bad_isolation_level(self, broker: penstock.Broker) -> None:
        with pytest.raises(InvalidConfigError, match="serializable"):
            broker.consumer("out", isolation_level="serializable")

    def test_describe_and_abort_from_outside(self, broker: penstock.Broker) -> None:
        with broker.producer(transactional_id="the id/1") as producer:
            producer.begin_transaction()
            spread(producer, b"a")
            producer.flush()
            (found,) = broker.transactions()
            assert (found.transactional_id, found.state, found.partitions) == ("the id/1", "ongoing", PLACES)
            assert broker.abort_transaction("the id/1") is True
            assert broker.abort_transaction("the id/1") is False
            with pytest.raises(FencedError):
                producer.commit_transaction()
            with pytest.raises(InvalidArgumentError, match="nobody"):
                broker.abort_transaction("nobody")
        assert values(broker) == []


@pytest.mark.usefixtures("out")
class TestFencing:
    def test_a_newer_producer_takes_over(self, broker: penstock.Broker) -> None:
        old = broker.producer(transactional_id="t")
        old.begin_transaction()
        spread(old, b"old")
        old.flush()
        with broker.producer(transactional_id="t") as new:
            assert new.producer_id == old.producer_id
            spread_error = pytest.raises(FencedError)
            with new.transaction():
                spread(new, b"new")
            with spread_error:
                spread(old, b"late")
                old.flush()
            with pytest.raises(FencedError):
                old.commit_transaction()
        old.close()
        assert values(broker) == [b"new0", b"new1", b"new2"]

    def test_a_timed_out_transaction_is_aborted(self, tmp_path: Path) -> None:
        clock = penstock.VirtualClock()
        with penstock.open(tmp_path / "other", clock=clock) as broker:
            broker.create_topic("out", partitions=3)
            with broker.producer(transactional_id="t", transaction_timeout_ms=5000) as producer:
                producer.begin_transaction()
                spread(producer, b"slow")
                producer.flush()
                clock.advance(4)
                broker.maintain()
                assert broker.transactions()[0].state == "ongoing"
                clock.advance(2)
                broker.maintain()
                assert broker.transactions()[0].state == "none"
                with pytest.raises(FencedError, match="5000 ms"):
                    producer.commit_transaction()
            assert values(broker) == []

    def test_a_deleted_topic_is_no_obstacle(self, broker: penstock.Broker) -> None:
        broker.create_topic("other")
        with broker.producer(transactional_id="t") as producer:
            with producer.transaction():
                spread(producer, b"a")
                producer.send("other", b"gone")
                producer.flush()
                broker.delete_topic("other")
            assert len(values(broker)) == 3


@pytest.mark.usefixtures("out")
class TestOffsets:
    @pytest.fixture
    def consumer(self, broker: penstock.Broker) -> penstock.Consumer:
        topic = broker.create_topic("in")
        for n in range(10):
            topic.append(b"%d" % n)
        return broker.consumer("in", group="g")

    def test_they_come_with_the_commit(self, broker: penstock.Broker, consumer: penstock.Consumer) -> None:
        place = TopicPartition("in", 0)
        with broker.producer(transactional_id="t") as producer:
            with producer.transaction():
                for record in consumer.poll(max_records=4):
                    producer.send("out", record.value)
                producer.send_offsets(consumer)
                assert consumer.committed(place) in (None, 0)
            assert consumer.committed(place) == 4
            with pytest.raises(KeyError), producer.transaction():
                consumer.poll(max_records=3)
                producer.send_offsets(consumer)
                raise KeyError
            assert consumer.committed(place) == 4
            consumer.seek_to_committed()
            assert [record.value for record in consumer.poll(max_records=2)] == [b"4", b"5"]
            consumer.close()
            assert broker.describe_group("g").partitions[0].committed == 4

    def test_of_a_partition_that_moved_they_abort(self, broker: penstock.Broker, consumer: penstock.Consumer) -> None:
        consumer.poll(max_records=4)
        with broker.producer(transactional_id="t") as producer:
            with pytest.raises(FencedError, match="moved"), producer.transaction():
                spread(producer, b"a")
                producer.send_offsets(consumer)
                broker.reset_offsets("g", "in", 2)
            assert values(broker) == []
            assert broker.transactions()[0].state == "none"
            with producer.transaction():
                spread(producer, b"b")
            assert len(values(broker)) == 3
        consumer.close()

    def test_without_a_group(self, broker: penstock.Broker) -> None:
        with broker.producer(transactional_id="t") as producer, broker.consumer("out") as consumer:
            with pytest.raises(InvalidArgumentError, match="no group"), producer.transaction():
                producer.send_offsets(consumer)


@pytest.mark.usefixtures("out")
class TestNumbers:
    def headers(self, broker: penstock.Broker, number: int) -> list[tuple[int, int, int]]:
        from penstock.storage.segment_scan import scan_segment

        log = broker.topic("out").log(number)
        path = log.directory / "00000000000000000000.log"
        scan = scan_segment(path, 0, end=log._state()["end_position"])
        return [(batch.producer_id, batch.producer_epoch, batch.base_sequence) for batch in scan.batches]

    def test_batches_are_numbered_per_partition(self, broker: penstock.Broker) -> None:
        with broker.producer() as producer:
            for _ in range(3):
                producer.send_many("out", [b"v"] * 5, partition=1)
                producer.flush()
            producer.send("out", b"w", partition=2)
            producer.flush()
            assert self.headers(broker, 1) == [(producer.producer_id, 0, n) for n in (0, 5, 10)]
            assert self.headers(broker, 2) == [(producer.producer_id, 0, 0)]
        with broker.producer(enable_idempotence=False) as plain:
            plain.send("out", b"v", partition=0)
            plain.flush()
            assert self.headers(broker, 0) == [(-1, -1, -1)]

    def test_a_named_producer_goes_on_where_it_was(self, broker: penstock.Broker) -> None:
        items = [b"%d" % n for n in range(100)]
        for stop in (30, 30, 100):
            producer = broker.producer(name="importer")
            done = producer.last_sequence(PLACES[1]) + 1
            producer.send_many("out", items[done:stop], partition=1)
            producer.flush()
        assert values(broker) == sorted(items)
        assert self.headers(broker, 1) == [(producer.producer_id, 1, 0), (producer.producer_id, 3, 30)]

    def test_a_name_has_one_producer_at_a_time(self, broker: penstock.Broker) -> None:
        old, new = broker.producer(name="n"), broker.producer(name="n")
        new.send("out", b"new", partition=0)
        new.flush()
        old.send("out", b"old", partition=0)
        with pytest.raises(FencedError):
            old.flush()
        old.purge()
        assert values(broker) == [b"new"]
        for options in ({"name": ""}, {"name": "n", "transactional_id": "t"}, {"name": 5}):
            with pytest.raises(penstock.PenstockError):
                broker.producer(**options)
        with broker.producer() as plain, pytest.raises(InvalidConfigError, match="name"):
            plain.last_sequence(PLACES[0])

    def test_a_batch_whose_sync_failed_is_not_stored_twice(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with penstock.open(tmp_path / "other", fsync="always") as broker:
            broker.create_topic("out")
            with broker.producer(linger_ms=60_000) as producer:
                producer.send("out", b"one")
                producer.flush()
                failing = True
                original = PartitionLog.sync_to

                def sync_to(log: PartitionLog, offset: int) -> None:
                    if failing:
                        raise OSError(errno.EIO, "no")
                    original(log, offset)

                monkeypatch.setattr(PartitionLog, "sync_to", sync_to)
                producer.send("out", b"two")
                with pytest.raises(OSError, match="no"):
                    producer.flush()
                assert producer.buffered_records == 1
                failing = False
                producer.flush()
                assert producer.buffered_records == 0
            with broker.consumer("out") as consumer:
                assert [record.value for record in consumer.poll(timeout=0)] == [b"one", b"two"]
