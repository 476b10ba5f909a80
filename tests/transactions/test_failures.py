"""Producers and transactions when something goes wrong: topics that vanish, epochs that run out, interrupts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
import penstock.aio
from penstock import FencedError, TopicPartition
from penstock.storage.transaction_record import EPOCH, EPOCH_MAX, STATE

PLACE = TopicPartition("t", 0)


@pytest.fixture
def topic(broker: penstock.Broker) -> penstock.Topic:
    """A topic of one partition."""
    return broker.create_topic("t")


def values(broker: penstock.Broker, topic: str = "t") -> list[bytes]:
    """What a reader of committed records sees."""
    return [record.value for record in broker.topic(topic).replay(isolation_level="read_committed")]


class FullDisk:
    """Appends to a log fail for as long as it is entered."""

    def __init__(self, broker: penstock.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = broker._log("t", 0)
        self.monkeypatch = monkeypatch

    def __enter__(self) -> None:
        limit = self.log.config.segment_bytes
        self.log._set_limits(1, 1 << 60)  # every batch wants a new segment, and there is no room for one
        self.monkeypatch.setattr(type(self.log), "_roll", self._refuse)
        self.limit = limit

    def _refuse(self, *_: object) -> None:
        raise penstock.DiskFullError(28, "No space left on device")

    def __exit__(self, *_: object) -> None:
        self.monkeypatch.undo()
        self.log._set_limits(self.limit, 1 << 60)


class TestTopicsThatChange:
    def test_what_cannot_be_stored_stays_when_the_topic_is_altered(
        self, broker: penstock.Broker, topic: penstock.Topic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic.append(b"first")
        with broker.producer(transactional_id="x", linger_ms=10_000) as producer:
            with producer.transaction():
                producer.send_many("t", [b"%d" % n for n in range(100)])
                broker.alter_topic("t", retention_ms=10**9)
                with FullDisk(broker, monkeypatch), pytest.raises(penstock.DiskFullError):
                    producer.send("t", b"refused")
                assert producer.buffered_records == 100
        assert values(broker) == [b"first", *(b"%d" % n for n in range(100))]

    @pytest.mark.parametrize("first", ["send", "flush"])
    def test_records_of_a_deleted_topic_are_reported(
        self, broker: penstock.Broker, topic: penstock.Topic, first: str
    ) -> None:
        broker.create_topic("other")
        told: list[object] = []
        with broker.producer(linger_ms=10_000) as producer:
            for n in range(3):
                producer.send("t", b"%d" % n, on_delivery=lambda error, metadata: told.append(error))
            producer.send("other", b"kept")
            broker.delete_topic("t")
            broker.create_topic("t")
            with pytest.raises(penstock.UnknownTopicError, match="deleted"):
                producer.send("t", b"new") if first == "send" else producer.flush()
            assert [type(error) for error in told] == [penstock.UnknownTopicError] * 3
            producer.send("t", b"new")
            producer.flush()
            assert producer.buffered_records == producer.buffered_bytes == 0
        assert values(broker) == [b"new"] and values(broker, "other") == [b"kept"]

    def test_a_transaction_does_not_commit_without_them(self, broker: penstock.Broker, topic: penstock.Topic) -> None:
        broker.create_topic("other")
        with broker.producer(transactional_id="x", linger_ms=10_000) as producer:
            with pytest.raises(penstock.UnknownTopicError), producer.transaction():
                producer.send("t", b"lost")
                producer.send("other", b"its half")
                broker.delete_topic("t")
            with producer.transaction():
                producer.send("other", b"next")
        assert values(broker, "other") == [b"next"]

    def test_every_topic_is_tried(
        self, broker: penstock.Broker, topic: penstock.Topic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic.append(b"first")
        broker.create_topic("after")
        producer = broker.producer(linger_ms=10_000)
        producer.send("t", b"later")
        producer.send("after", b"now")
        with FullDisk(broker, monkeypatch):
            with pytest.raises(penstock.DiskFullError):
                producer.flush()
            assert values(broker, "after") == [b"now"]
        producer.close()
        assert values(broker) == [b"first", b"later"]


def exhaust(broker: penstock.Broker, identity: dict[str, str]) -> penstock.Producer:
    """A producer with the last epoch there is."""
    first = broker.producer(**identity)
    record = first._name or first._transaction._record  # type: ignore[union-attr]
    words = record.words
    first.close()
    words.set(EPOCH, EPOCH_MAX - 1)
    words.set(STATE, (EPOCH_MAX - 1) << 8)
    return broker.producer(**identity)


class TestEpochsRunOut:
    def test_what_the_last_one_left_open_is_aborted(self, broker: penstock.Broker, topic: penstock.Topic) -> None:
        last = exhaust(broker, {"transactional_id": "x"})
        last.begin_transaction()
        last.send("t", b"open")
        last.flush()
        following = broker.producer(transactional_id="x")
        assert following.producer_id != last.producer_id
        with following.transaction():
            following.send("t", b"good")
        assert values(broker) == [b"good"]
        assert topic.log(0).last_stable_offset == topic.log(0).log_end_offset
        with pytest.raises(FencedError):
            last.commit_transaction()
        last.abort_transaction()

    def test_a_name_still_knows_its_last_sequence(self, broker: penstock.Broker, topic: penstock.Topic) -> None:
        with exhaust(broker, {"name": "importer"}) as last:
            last.send_many("t", [b"%d" % n for n in range(5)])
        with broker.producer(name="importer") as following:
            assert following.producer_id != last.producer_id and following.last_sequence(PLACE) == 4
            following.send("t", b"5")
            following.flush()
            assert following.last_sequence(PLACE) == 5


class TestZombies:
    def test_a_fenced_begin_changes_nothing(self, broker: penstock.Broker, topic: penstock.Topic) -> None:
        zombie = broker.producer(transactional_id="x")
        with broker.producer(transactional_id="x") as owner:
            owner.begin_transaction()
            started = owner._transaction._record.started_ms  # type: ignore[union-attr]
            time.sleep(0.005)
            with pytest.raises(FencedError):
                zombie.begin_transaction()
            assert owner._transaction._record.started_ms == started  # type: ignore[union-attr]
            owner.send("t", b"1")
            owner.commit_transaction()
        assert values(broker) == [b"1"]


class TestInterrupts:
    def test_after_a_begin_that_did_not_return(self, broker: penstock.Broker, topic: penstock.Topic) -> None:
        with broker.producer(transactional_id="x") as producer:
            producer.begin_transaction()
            producer.send("t", b"lost")
            producer.flush()
            producer._transaction._open = False  # type: ignore[union-attr]  # as if it had been interrupted
            with producer.transaction():
                producer.send("t", b"good")
        assert values(broker) == [b"good"]

    def test_after_a_commit_that_did_not_return(self, broker: penstock.Broker, topic: penstock.Topic) -> None:
        with broker.producer(transactional_id="x") as producer:
            producer.begin_transaction()
            producer.send("t", b"good")
            producer.commit_transaction()
            producer._transaction._open = True  # type: ignore[union-attr]
            producer.commit_transaction()
            with producer.transaction():
                producer.send("t", b"next")
        assert values(broker) == [b"good", b"next"]

    def test_a_block_may_end_its_transaction_itself(self, broker: penstock.Broker, topic: penstock.Topic) -> None:
        with broker.producer(transactional_id="x") as producer:
            with pytest.raises(KeyError), producer.transaction():
                producer.send("t", b"aborted")
                producer.abort_transaction()
                raise KeyError
            with producer.transaction():
                producer.send("t", b"good")
                producer.commit_transaction()
        assert values(broker) == [b"good"]


class TestOffsetsOfWhom:
    @pytest.mark.parametrize("consumer", [None, "c", 5])
    def test_not_a_consumer(self, broker: penstock.Broker, topic: penstock.Topic, consumer: object) -> None:
        with broker.producer(transactional_id="x") as producer, producer.transaction():
            with pytest.raises(penstock.InvalidTypeError, match="consumer is"):
                producer.send_offsets(consumer)  # type: ignore[arg-type]

    def test_of_another_directory(self, broker: penstock.Broker, topic: penstock.Topic, tmp_path: Path) -> None:
        with penstock.open(tmp_path / "other") as other:
            other.create_topic("t").append(b"x")
            with other.consumer("t", group="g") as consumer, broker.producer(transactional_id="x") as producer:
                consumer.poll()
                with producer.transaction(), pytest.raises(penstock.InvalidArgumentError, match="other"):
                    producer.send_offsets(consumer)

    def test_of_a_closed_one(self, broker: penstock.Broker, topic: penstock.Topic) -> None:
        consumer = broker.consumer("t", group="g")
        consumer.close()
        with broker.producer(transactional_id="x") as producer, producer.transaction():
            with pytest.raises(penstock.ClosedError):
                producer.send_offsets(consumer)


def test_an_id_that_makes_no_file_name(broker: penstock.Broker) -> None:
    with pytest.raises(penstock.InvalidArgumentError, match="percent-encoded"):
        broker.producer(transactional_id="\N{SNOWMAN}" * 60)


def test_damaged_records_are_named(broker: penstock.Broker, topic: penstock.Topic) -> None:
    with broker.producer(transactional_id="x") as producer:
        words = producer._transaction._record.words  # type: ignore[union-attr]
        before = words.get(STATE)
        words.set(STATE, before | 9)
        with pytest.raises(penstock.CorruptionError, match="state of a transaction is damaged"):
            broker.transactions()
        broker.maintain()
        words.set(STATE, before)


def slow_values() -> Iterator[bytes]:
    """Records that take their time."""
    for n in range(50):
        time.sleep(0.002)
        yield b"cancelled %d" % n


def test_a_cancelled_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    async def run() -> None:
        async with penstock.aio.open(tmp_path / "data", fsync="always") as broker:
            await broker.create_topic("t")
            async with broker.producer(transactional_id="x") as producer:

                async def cancelled() -> None:
                    async with producer.transaction():
                        await producer.send_many("t", slow_values())

                task = asyncio.create_task(cancelled())
                await asyncio.sleep(0.03)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                async with producer.transaction():
                    await producer.send("t", b"second")
            assert values(broker.sync) == [b"second"]

    asyncio.run(run())


def test_waiting_for_a_record_of_a_deleted_topic_ends(tmp_path: Path) -> None:
    async def run() -> None:
        async with penstock.aio.open(tmp_path / "data") as broker:
            await broker.create_topic("t")
            async with broker.producer(linger_ms=10_000) as producer:
                waiting = asyncio.create_task(producer.send_and_wait("t", b"lost"))
                await asyncio.sleep(0.01)
                await broker.delete_topic("t")
                with pytest.raises(penstock.UnknownTopicError):
                    await producer.flush()
                with pytest.raises(penstock.UnknownTopicError):
                    await waiting

    asyncio.run(run())
