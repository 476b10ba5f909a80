"""Topics that refuse new records when they are full: exact over processes, nothing lost, and what makes room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from children import FORKSERVER

import penstock
from penstock import InvalidConfigError, QueueFullError, TopicFullError, TopicPartition, VirtualClock

MIB = 1 << 20
LIMIT = 3 * MIB
VALUE = b"v" * 50_000
PARTITION = TopicPartition("t", 0)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def broker(tmp_path: Path, clock: VirtualClock) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", fsync="never", maintenance_interval_ms=10**9, clock=clock) as broker:
        yield broker


def refusing(broker: penstock.Broker, **config: object) -> penstock.Topic:
    options = {"retention_bytes": LIMIT, "full_policy": "refuse-new", "segment_bytes": MIB, **config}
    return broker.create_topic("t", **options)  # type: ignore[arg-type]


def fill(topic: penstock.Topic) -> int:
    """Append until it is refused; how many were stored."""
    for number in range(10_000):
        end = topic.log(0).log_end_offset
        try:
            topic.append(VALUE)
        except TopicFullError:
            assert topic.log(0).log_end_offset == end
            return number
    raise AssertionError("nothing was refused")


def values(broker: penstock.Broker) -> list[bytes | None]:
    with broker.consumer("t", isolation_level="read_committed") as consumer:
        found: list[bytes | None] = []
        while records := consumer.poll(max_records=1000, timeout=0):
            found += [record.value for record in records]
        return found


def test_the_limit_is_exact_over_segments(broker: penstock.Broker) -> None:
    topic = refusing(broker)
    stored = fill(topic)
    log = topic.log(0)
    size = log.size_bytes()
    assert len(log.segments()) > 2
    assert size <= LIMIT < size + size // stored
    room = LIMIT - size - 69 - 11  # of a batch's header and a record's
    with pytest.raises(TopicFullError, match=f"retention_bytes is {LIMIT} and full_policy 'refuse-new'") as caught:
        topic.append(b"x" * (room + 20))
    assert caught.value.retriable and isinstance(caught.value, QueueFullError)
    topic.append(b"x" * room)  # what is smaller still fits
    assert log.size_bytes() <= LIMIT
    assert broker.maintain() and log.log_start_offset == 0  # nothing old goes for its size
    assert len(values(broker)) == stored + 1


def test_a_topic_that_discards_is_never_full(broker: penstock.Broker) -> None:
    topic = refusing(broker, full_policy="discard-old")
    for _ in range(200):
        topic.append(VALUE)
    assert topic.log(0).log_start_offset > 0
    assert topic.log(0).size_bytes() < LIMIT + 2 * MIB


def test_deleted_records_make_room_at_once(broker: penstock.Broker) -> None:
    topic = refusing(broker)
    stored = fill(topic)
    for start in (1, 2, 30):  # inside a segment, whose file stays
        before = topic.log(0).log_end_offset
        freed = start - topic.log(0).log_start_offset
        broker.delete_records(PARTITION, start)
        assert fill(topic) == freed == topic.log(0).log_end_offset - before
    broker.delete_records(PARTITION, topic.log(0).log_end_offset)
    assert fill(topic) == stored


def test_it_stays_full_when_everybody_left(tmp_path: Path) -> None:
    for _ in range(2):
        with penstock.open(tmp_path / "data", fsync="never", maintenance_interval_ms=10**9) as broker:
            if "t" not in broker.topics():
                refusing(broker)
                assert fill(broker.topic("t")) > 0
            assert fill(broker.topic("t")) == 0


def test_what_is_past_its_time_goes_when_room_is_needed(broker: penstock.Broker, clock: VirtualClock) -> None:
    topic = refusing(broker, retention_ms=1000)
    stored = fill(topic)
    clock.advance(2)
    assert topic.append(VALUE).offset == stored
    assert topic.log(0).log_start_offset == stored


def test_acknowledgements_make_room(broker: penstock.Broker) -> None:
    topic = refusing(broker, retention_policy="work-queue")
    with broker.share_consumer("t", group="workers") as workers:
        stored = fill(topic)
        messages = workers.receive(stored, wait=0)
        workers.ack_many(messages[:5])
        assert fill(topic) == 5
        workers.ack_many(messages[5:])
        assert fill(topic) == stored - 5


def test_a_consumer_groups_commit_makes_room(broker: penstock.Broker) -> None:
    topic = refusing(broker, retention_policy="interest")
    with broker.consumer("t", group="readers", enable_auto_commit=False) as consumer:
        consumer.poll(timeout=0)
        consumer.commit()
        stored = fill(topic)
        seen = 0
        while seen < stored:
            seen += len(consumer.poll(max_records=1000, timeout=0))
        assert fill(topic) == 0
        consumer.commit()
        assert fill(topic) == stored


def test_a_producer_keeps_what_it_buffered(broker: penstock.Broker) -> None:
    topic = refusing(broker)
    stored = fill(topic)
    with broker.producer(linger_ms=10**6, batch_size=200_000) as producer:
        for number in range(3):
            producer.send("t", b"%d" % number + VALUE)
        for _ in range(2):
            with pytest.raises(TopicFullError):
                producer.flush()
            assert producer.buffered_records == 3
        broker.delete_records(PARTITION, 4)
        producer.flush()
        assert producer.buffered_records == 0
    found = values(broker)
    assert len(found) == stored - 4 + 3
    assert [value[:1] for value in found[-3:] if value] == [b"0", b"1", b"2"]


def test_a_batch_is_refused_as_a_whole(broker: penstock.Broker) -> None:
    topic = refusing(broker)
    stored = fill(topic)
    broker.delete_records(PARTITION, 2)
    with pytest.raises(TopicFullError):
        topic.append_batch([VALUE] * 3)
    assert topic.log(0).log_end_offset == stored
    topic.append_batch([VALUE] * 2)


def test_a_transaction_can_always_end(broker: penstock.Broker) -> None:
    topic = refusing(broker, max_message_bytes=10)
    with broker.producer(transactional_id="x", linger_ms=10**6) as producer:
        broker.alter_topic("t", retention_bytes=200)
        with producer.transaction():
            producer.send("t", b"kept")
            producer.flush()
            broker.alter_topic("t", retention_bytes=topic.log(0).size_bytes())
        with pytest.raises(TopicFullError), producer.transaction():
            producer.send("t", b"refused")
    assert values(broker) == [b"kept"]


def test_a_compacted_topic_goes_on_after_compaction(broker: penstock.Broker) -> None:
    topic = refusing(broker, cleanup_policy="compact")
    with pytest.raises(TopicFullError):
        for _ in range(1000):
            topic.append(VALUE, key=b"k")
    end = topic.log(0).log_end_offset
    broker.compact("t")
    assert topic.append(VALUE, key=b"k").offset == end


def test_the_limit_may_change(broker: penstock.Broker) -> None:
    topic = refusing(broker)
    fill(topic)
    broker.alter_topic("t", retention_bytes=LIMIT + 10 * len(VALUE))
    assert fill(topic) >= 9
    broker.alter_topic("t", full_policy="discard-old")
    topic.append(VALUE)
    broker.alter_topic("t", full_policy="refuse-new", retention_bytes=MIB)
    assert fill(topic) == 0 and topic.log(0).log_start_offset == 0


@pytest.mark.parametrize("config", [{"full_policy": "refuse"}, {"full_policy": None}, {"full_policy": "refuse-new"}])
def test_bad_policies(broker: penstock.Broker, config: dict[str, object]) -> None:
    with pytest.raises(InvalidConfigError, match="full_policy is"):
        broker.create_topic("t", **config)  # type: ignore[arg-type]
    assert broker.topics() == []


def append_until_full(path: str, begin: Connection, out: Connection) -> None:
    """In another process: append numbered values until one is refused; which were stored."""
    with penstock.open(path, fsync="never", maintenance_interval_ms=10**9) as broker:
        topic = broker.topic("t")
        stored: list[bytes] = []
        out.send("ready")
        begin.recv()
        try:
            while True:
                value = b"%d.%d" % (os.getpid(), len(stored))
                topic.append(value.ljust(7000, b"."))
                stored.append(value)
        except TopicFullError:
            out.send(stored)


def test_processes_share_one_exact_limit(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with penstock.open(path, fsync="never", maintenance_interval_ms=10**9) as broker:
        topic = refusing(broker)
        for taken in (0, 100, 333):  # again after room was made
            broker.delete_records(PARTITION, topic.log(0).log_start_offset + taken)
            before = topic.log(0).log_end_offset
            told = sorted(value for stored in _together(path, 3) for value in stored)
            found = [value.rstrip(b".") for value in values(broker) if value is not None]
            assert sorted(found[before - topic.log(0).log_start_offset :]) == told
            assert len(found) == LIMIT // (7000 + 61 + 11)
            assert len(told) == (taken or len(found))


def _together(path: Path, count: int) -> list[list[bytes]]:
    started = []
    for _ in range(count):
        begin, begun = FORKSERVER.Pipe()
        told, tell = FORKSERVER.Pipe()
        process = FORKSERVER.Process(target=append_until_full, args=(str(path), begun, tell), daemon=True)
        process.start()
        started.append((process, begin, told))
    for _, _, told in started:
        assert told.recv() == "ready"
    for _, begin, _ in started:
        begin.send("go")
    found = [told.recv() for _, _, told in started]
    for process, _, _ in started:
        process.join()
        assert process.exitcode == 0
    return found
