"""NATS's retention: limits, work-queue and interest, for queues and for topics with share groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock import InvalidConfigError


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", fsync="never", maintenance_interval_ms=10**9) as broker:
        yield broker


def kept(broker: penstock.Broker, topic: str, partition: int = 0) -> tuple[int, int]:
    broker.maintain()
    log = broker.topic(topic).log(partition)
    return log.log_start_offset, log.log_end_offset


def take(group: penstock.ShareGroup, count: int) -> None:
    assert group.ack_many(group.receive(count, wait=0)) == []


@pytest.mark.parametrize("fifo", [False, True])
def test_limits_keep_what_is_settled(broker: penstock.Broker, fifo: bool) -> None:
    queue = broker.queue("q", fifo=fifo)
    queue.send_many([b"x"] * 5)
    take(queue, 5)
    assert kept(broker, "q") == (0, 5)


@pytest.mark.parametrize("options", [{"retention_policy": "work-queue"}, {"keep_acknowledged": False}])
@pytest.mark.parametrize("fifo", [False, True])
def test_a_work_queue_keeps_what_is_not_settled(
    broker: penstock.Broker, options: dict[str, object], fifo: bool
) -> None:
    queue = broker.queue("q", fifo=fifo, **options)
    queue.send_many([b"%d" % number for number in range(6)])
    first, *others = queue.receive(4, wait=0)
    queue.ack_many(others)
    assert kept(broker, "q") == (0, 6)
    first.ack()
    assert kept(broker, "q") == (4, 6)
    queue.receive(1, wait=0)[0].reject()
    assert kept(broker, "q") == (4, 6)  # a dead message stays, to be looked at and redriven
    queue.purge("dead")
    take(queue, 1)
    assert kept(broker, "q") == (6, 6)
    queue.send(b"next")
    assert [message.value for message in queue.receive(wait=0)] == [b"next"]


def test_a_topic_of_work_has_one_group(broker: penstock.Broker) -> None:
    topic = broker.create_topic("jobs", partitions=2, retention_policy="work-queue")
    for partition in (0, 1):
        topic.append(b"x", partition=partition)
    assert kept(broker, "jobs") == (0, 1)
    with broker.share_consumer("jobs", "workers") as workers:
        with pytest.raises(InvalidConfigError, match="'workers' as its group"):
            broker.share_consumer("jobs", "others")
        take(workers, 2)
        assert (kept(broker, "jobs"), kept(broker, "jobs", 1)) == ((1, 1), (1, 1))
    with broker.share_consumer("jobs", "workers") as again:
        assert again.stats().acknowledged == 2


def test_interest_ends_when_every_group_is_done(broker: penstock.Broker) -> None:
    topic = broker.create_topic("news", retention_policy="interest")
    first, second = broker.share_consumer("news", "a"), broker.share_consumer("news", "b", key_ordered=True)
    with broker.consumer("news", group="readers", enable_auto_commit=False) as reader:
        assert reader.poll(timeout=0.1) == []  # it joins
        for number in range(4):
            topic.append(b"%d" % number)
        take(first, 4)
        assert kept(broker, "news") == (0, 4)
        take(second, 3)
        assert kept(broker, "news") == (0, 4)
        assert len(reader.poll(max_records=2, timeout=5)) == 2
        reader.commit()
        assert kept(broker, "news") == (2, 4)
        assert len(reader.poll(timeout=5)) == 2
        reader.commit()
        assert kept(broker, "news") == (3, 4)
    first.close()
    second.close()


def test_without_interest_nothing_is_kept(broker: penstock.Broker) -> None:
    topic = broker.create_topic("news", retention_policy="interest")
    topic.append(b"x" * 100_000)
    assert kept(broker, "news") == (1, 1)
    with broker.share_consumer("news", "a") as group:
        topic.append(b"y")
        assert kept(broker, "news") == (1, 2)
        take(group, 1)
    assert kept(broker, "news") == (2, 2)


def test_the_policy_may_be_changed(broker: penstock.Broker) -> None:
    queue = broker.queue("q")
    queue.send_many([b"x"] * 3)
    take(queue, 2)
    broker.queue("q", retention_policy="interest")
    assert kept(broker, "q") == (2, 3)
    broker.queue("q", retention_policy="limits")
    take(queue, 1)
    assert kept(broker, "q") == (2, 3)
    with pytest.raises(InvalidConfigError, match="retention_policy is 'work'"):
        broker.queue("q", retention_policy="work")
