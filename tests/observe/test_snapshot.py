"""`Broker.metrics`: what there is now, and what happened between two snapshots."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.queues import metrics_reader
from penstock.queues.delivery_store import open_delivery


def test_topics(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", partitions=2, compression_type="lz4")
    broker.create_topic("empty")
    with broker.producer() as producer:
        for number in range(2):
            producer.send_many("t", [b"text " * 30] * 500, partition=number)
    with broker.consumer("t") as consumer:
        assert len(consumer.poll(max_records=1000)) == 1000
    found = broker.metrics().topics
    assert list(found) == ["empty", "t"]
    assert found["empty"].records == 0 and found["empty"].compression_ratio == 1
    t = found["t"]
    assert t.records == t.records_appended == t.records_read == 1000
    assert t.size_bytes == t.bytes_appended == sum(one.size_bytes for one in topic.describe().partitions)
    assert t.compression_ratio > 5
    assert t.append_latency.count == t.batches_appended == t.batch_records.count == t.batch_bytes.count
    assert t.batch_records.mean == 1000 / t.batches_appended
    assert t.batch_bytes.mean == pytest.approx(t.bytes_appended / t.batches_appended)
    assert 0 < t.append_latency.percentile(50) < 1
    assert [one.records_appended for one in t.partitions] == [500, 500]
    assert sum(one.append_latency.count for one in t.partitions) == t.append_latency.count
    assert t.polls == t.poll_latency.count == 1


def test_partitions_that_nobody_has_open(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        topic = broker.create_topic("t", partitions=3, segment_bytes=1 << 20)
        for number in range(3):
            for _ in range(3):
                topic.append(b"v" * 700_000, partition=number)
        size = sum(one.size_bytes for one in topic.describe().partitions)
    with penstock.open(tmp_path / "data") as broker:
        first = broker.metrics().topics["t"]  # of an earlier opening: made ready by looking
        assert (first.records, first.size_bytes) == (9, size)
        with penstock.open(tmp_path / "data") as other:
            assert other.metrics().topics["t"].size_bytes == size
            assert other._logs == {}, "nothing was opened for it"


def test_lag_in_records_and_seconds(timed: penstock.Broker, clock: penstock.VirtualClock) -> None:
    topic = timed.create_topic("t")
    for _ in range(10):
        topic.append(b"v")
        clock.advance(1)
    with timed.consumer("t", group="g", enable_auto_commit=False) as consumer:
        consumer.poll(max_records=4)
        consumer.commit()
        before = timed.metrics()
        group = before.groups["g"]
        assert (group.lag, group.lag_s, group.members, group.commits) == (6, 6.0, 1, 1)
        (partition,) = group.partitions
        assert (partition.committed, partition.log_end_offset, partition.member_id) == (4, 10, consumer.member_id)
        clock.advance(2)
        topic.append(b"v")
        consumer.poll(max_records=4)
        consumer.commit()
        after = timed.metrics()
        assert after.groups["g"].lag_s == 4.0
        rates = after.since(before).groups["g"]
        assert (rates.consumed_per_s, rates.stored_per_s, rates.lag) == (2.0, 0.5, 3)
        assert rates.catch_up_s == 2.0
        clock.advance(1)
        topic.append(b"v")
        assert timed.metrics().since(after).groups["g"].catch_up_s == math.inf
        consumer.poll()
        consumer.commit()
        group = timed.metrics().groups["g"]
        assert (group.lag, group.lag_s) == (0, 0.0)
        assert timed.metrics().groups["g"].rebalances == timed.describe_group("g").generation


def test_a_group_agrees_with_its_description(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", partitions=3)
    for number in range(100):
        topic.append(b"v", key=str(number).encode())
    with broker.consumer("t", group="g") as consumer:
        consumer.poll(max_records=10)
    described = broker.describe_group("g")
    found = broker.metrics().groups["g"]
    assert found.lag == described.lag == 90
    assert [(one.partition, one.committed, one.lag) for one in found.partitions] == [
        (one.partition, one.committed, one.lag) for one in described.partitions
    ]


def test_queues(timed: penstock.Broker, clock: penstock.VirtualClock) -> None:
    queue = timed.queue("q", max_receives=1)
    before = timed.metrics()
    for _ in range(10):
        queue.send(b"m")
    queue.send(b"m", delay=100)
    clock.advance(4)
    messages = queue.receive(5)
    messages[0].ack()
    messages[1].nack()  # the only try: dead
    messages[2].nack(failed=False)
    after = timed.metrics()
    found = after.queues["q"]
    assert (found.ready, found.in_flight, found.delayed, found.dead) == (6, 2, 1, 1)
    stats = queue.stats()
    assert (found.ready, found.in_flight, found.delayed, found.dead) == (
        stats.ready, stats.in_flight, stats.delayed, stats.dead,
    )  # fmt: skip
    assert found.age_of_oldest_s == stats.age_of_oldest_s == 4.0
    assert (found.sent, found.received, found.acknowledged, found.released) == (11, 5, 1, 1)
    assert (found.nacked, found.dead_lettered) == (0, 1), "its failure is that it died"
    rates = after.since(before).queues["q"]
    assert (rates.sent_per_s, rates.received_per_s, rates.acknowledged_per_s) == (11 / 4, 5 / 4, 1 / 4)
    assert rates.error_rate == 0.2
    assert rates.catch_up_s == math.inf


def test_time_in_the_queue_and_in_hand(timed: penstock.Broker, clock: penstock.VirtualClock) -> None:
    queue = timed.queue("q")
    queue.send_many([b"m"] * 160)
    clock.advance(3)
    while messages := queue.receive(20, wait=0):
        queue.ack_many(messages)
    found = timed.metrics().queues["q"]
    assert found.wait.count == found.processing.count == found.received == 160
    assert found.wait.percentile(50) == pytest.approx(3.0, rel=0.065)
    assert found.receive_batch.percentile(50) == pytest.approx(20, rel=0.065)


def test_share_groups(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", partitions=2)
    for number in range(10):
        topic.append(b"v", partition=number % 2)
    with broker.share_consumer("t", "workers") as workers:
        workers.receive(4)
        assert broker.metrics().share_groups["t", "workers"].in_flight == 4
    found = broker.metrics()
    assert list(found.share_groups) == [("t", "workers")] and not found.queues
    broker.delete_share_group("t", "workers")
    with penstock.open(broker.path) as other:
        assert not other.metrics().share_groups


def test_looking_disturbs_nothing(timed: penstock.Broker, clock: penstock.VirtualClock) -> None:
    topic = timed.create_topic("t")
    topic.append(b"v")
    queue = timed.queue("q")
    queue.send(b"m")
    with penstock.open(timed.path, clock=clock) as other:
        first = other.metrics().to_dict()
        assert other.metrics().to_dict() == first
        assert other.groups() == []
    assert timed.metrics().topics["t"].records_read == 0
    assert queue.receive(1)[0].delivery_count == 1


def test_topics_that_go_and_come_again(timed: penstock.Broker, clock: penstock.VirtualClock) -> None:
    queue = timed.queue("q")
    queue.send(b"m")
    before = timed.metrics()
    clock.advance(5)
    timed.delete_queue("q")
    assert timed.metrics().queues == {}
    timed.queue("q").send_many([b"m"] * 3)
    after = timed.metrics()
    assert after.queues["q"].age_of_oldest_s == 0
    rates = after.since(before)
    assert rates.topics["q"].records_appended_per_s == 3 / 5
    assert rates.queues["q"].sent_per_s == 3 / 5


def test_what_takes_no_time_has_no_rates(timed: penstock.Broker) -> None:
    first = timed.metrics()
    with pytest.raises(penstock.InvalidArgumentError, match="earlier"):
        timed.metrics().since(first)


def test_producers(broker: penstock.Broker) -> None:
    broker.create_topic("t")
    with broker.producer(linger_ms=60_000) as producer:
        producer.send("t", b"v" * 100)
        (found,) = broker.metrics().producers
        assert (found.buffered_records, found.producer_id) == (1, producer.producer_id)
        assert found.buffered_bytes > 100
    assert broker.metrics().producers == ()


def test_json(broker: penstock.Broker) -> None:
    broker.create_topic("t").append(b"v")
    broker.queue("q").send(b"m")
    with broker.consumer("t", group="g") as consumer:
        consumer.poll()
    document = json.loads(json.dumps(broker.metrics().to_dict()))
    assert {row["name"] for row in document["topics"]} == {"q", "t"}
    assert document["queues"][0]["ready"] == 1
    assert document["groups"][0]["name"] == "g"
    assert document["topics"][1]["append_latency"].keys() >= {"count", "p50", "p99", "mean"}


def test_in_the_child_of_a_fork(broker: penstock.Broker) -> None:
    queue = broker.queue("q")
    queue.send(b"m")
    broker.metrics()
    child = os.fork()
    if child == 0:
        try:
            queue.send(b"m")
            os._exit(0 if broker.metrics().queues["q"].ready == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert broker.metrics().queues["q"].sent == 2


def test_without_counting_there_still_is_what_there_is(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data", metrics=False) as broker:
        broker.create_topic("t").append(b"v")
        broker.queue("q").send(b"m")
        found = broker.metrics()
        assert (found.topics["t"].records, found.topics["t"].records_appended) == (1, 0)
        assert found.queues["q"].ready == 1
        with penstock.open(tmp_path / "data") as other:
            other.topic("t").append(b"v")
        broker.topic("t").append(b"v")
        found = broker.metrics()
        assert (found.topics["t"].records, found.topics["t"].records_appended) == (3, 2), "all since somebody counts"


def test_closed(broker: penstock.Broker) -> None:
    broker.close()
    with pytest.raises(penstock.ClosedError):
        broker.metrics()


class FullDisk:
    """A group's state on a disk without room: what was stored since cannot be taken in."""

    def __init__(self, delivery: Any) -> None:
        self._delivery = delivery
        self.log = delivery.log
        self.full = False

    def counts(self, now_ms: int) -> Any:
        if self.full:
            raise penstock.DiskFullError(28, "no room")
        return self._delivery.counts(now_ms)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._delivery, name)


def test_a_full_disk_does_not_hide_the_metrics(broker: penstock.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def opened(*given: Any, **options: Any) -> FullDisk:
        made.append(FullDisk(open_delivery(*given, **options)))
        return made[-1]

    monkeypatch.setattr(metrics_reader, "open_delivery", opened)
    queue = broker.queue("q")
    queue.send_many([b"1", b"2", b"3"])
    queue.receive(3)[0].ack()
    before = broker.metrics().queues["q"]
    made[0].full = True
    queue.send_many([b"4", b"5"])
    now = broker.metrics().queues["q"]
    assert (before.ready, before.in_flight) == (0, 2)
    assert (now.ready, now.in_flight, now.sent, now.acknowledged) == (2, 2, 5, 1)
