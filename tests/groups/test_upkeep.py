"""What keeps a group's assignment, offsets and lag right while topics, readers and time come and go."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

import penstock
from penstock import TopicPartition

DAY_MS = 86_400_000
P0 = TopicPartition("t", 0)


def generation(broker: penstock.Broker, group: str = "g") -> int:
    return broker.describe_group(group).generation


def settle(*consumers: penstock.Consumer) -> None:
    for _ in range(3):
        for consumer in consumers:
            consumer.poll(timeout=0)


def test_a_pattern_that_matches_nothing_yet(broker: penstock.Broker) -> None:
    with broker.consumer(group="g") as first, broker.consumer(group="g") as second:
        first.subscribe(pattern="order.*")
        second.subscribe(pattern="order.*")
        settle(first, second)
        assert first.assignment() == set() and len(broker.describe_group("g").members) == 2
        topic = broker.create_topic("orders", partitions=2)
        settle(first, second)
        assert len(first.assignment()) == len(second.assignment()) == 1
        for number in range(2):
            topic.append(b"%d" % number, partition=number)
        assert sorted(r.value for r in first.poll(timeout=0) + second.poll(timeout=0)) == [b"0", b"1"]
        settle(first, second)
        assert broker.describe_group("g").lag == 0


def test_only_groups_whose_topics_change_rebalance(broker: penstock.Broker) -> None:
    broker.create_topic("t", partitions=2)
    with broker.consumer("t", group="g") as consumer, broker.consumer(group="h") as other:
        other.subscribe(pattern="[tu]")
        settle(consumer, other)
        before, others = generation(broker), generation(broker, "h")
        broker.create_topic("unrelated", partitions=3)
        broker.alter_topic("t", retention_ms=1000)
        broker.delete_topic("unrelated")
        settle(consumer, other)
        assert (generation(broker), generation(broker, "h")) == (before, others)
        broker.create_topic("u")
        settle(consumer, other)
        assert (generation(broker), generation(broker, "h")) == (before, others + 1)
        broker.alter_topic("t", partitions=3)
        settle(consumer, other)
        assert (generation(broker), generation(broker, "h")) == (before + 1, others + 2)
        assert len(consumer.assignment()) == 3 and len(other.assignment()) == 4


def test_a_deleted_topic_leaves_the_rest_even(broker: penstock.Broker) -> None:
    for name in ("t", "u"):
        broker.create_topic(name, partitions=2)
    with (
        broker.consumer("t", "u", group="g", partition_assignment_strategy="range") as first,
        broker.consumer("t", "u", group="g", partition_assignment_strategy="range") as second,
    ):
        settle(first, second)
        broker.delete_topic("u")
        settle(first, second)
        assert first.assignment() | second.assignment() == {P0, TopicPartition("t", 1)}
        assert len(first.assignment()) == len(second.assignment()) == 1
        assert {p.topic for p in broker.describe_group("g").partitions} == {"t"}
        broker.create_topic("u", partitions=2)
        settle(first, second)
        assert len(first.assignment() | second.assignment()) == 4


def test_offsets_in_use_by_hand_do_not_expire(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path, clock=clock, maintenance_interval_ms=10**9) as broker:
        broker.create_topic("t").append(b"x")
        consumer = broker.consumer(group="g", enable_auto_commit=False)
        consumer.assign([P0])
        consumer.poll(timeout=0)
        consumer.commit()
        for _ in range(3):
            clock.advance(8 * DAY_MS / 1000)
            broker.maintain()
            assert broker.groups() == ["g"]
        consumer.close()
        clock.advance(6 * DAY_MS / 1000)
        broker.maintain()
        assert broker.groups() == ["g"]
        clock.advance(2 * DAY_MS / 1000)
        broker.maintain()
        assert broker.groups() == []


def test_a_killed_user_of_offsets_does_not_keep_them(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path, clock=clock, maintenance_interval_ms=10**9) as broker:
        broker.create_topic("t").append(b"x")
        child = os.fork()
        if child == 0:
            consumer = broker.consumer(group="g")
            consumer.assign([P0])
            os._exit(0 if len(consumer.poll(timeout=0)) == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        broker._keeper.token()
        broker._keeper.look_after_others()
        clock.advance(8 * DAY_MS / 1000)
        broker.maintain()
        assert broker.groups() == []


def test_setting_offsets_keeps_a_group(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path, clock=clock, maintenance_interval_ms=10**9) as broker:
        broker.create_topic("t").append(b"x")
        for _ in range(3):
            broker.reset_offsets("g", "t", "latest")
            clock.advance(6 * DAY_MS / 1000)
            broker.maintain()
        assert broker.groups() == ["g"]


def test_lag_of_committed_readers(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t")
    consumer = broker.consumer("t", group="g", isolation_level="read_committed")
    other = broker.consumer("t")
    consumer.poll(timeout=0)

    def lags() -> tuple[int, int, int]:
        found = broker.describe_group("g").partitions[0]
        return consumer.lag()[P0], found.lag, other.lag()[P0]

    topic.append(b"plain")
    with broker.producer(transactional_id="x") as producer:
        producer.begin_transaction()
        producer.send_many("t", [b"1", b"2"])
        producer.flush()
        assert lags() == (1, 1, 3)  # what is not decided is not there to be read
        assert len(consumer.poll(timeout=0)) == 1
        consumer.commit()
        assert lags() == (0, 0, 3)
        producer.commit_transaction()
        assert lags()[:2] == (3, 3)  # with the marker
        records = consumer.poll(timeout=0)
        consumer.commit(records[-1])  # stands before the marker
        assert lags()[1] == 0 and broker.describe_group("g").partitions[0].lag_ms == 0
        producer.begin_transaction()
        producer.send_many("t", [b"3", b"4"])
        producer.flush()
        producer.abort_transaction()
        assert lags()[:2] == (0, 0)  # nothing that it would ever be shown
        assert len(other.poll(timeout=0)) == 5 and other.lag()[P0] == 0
    consumer.close()
    other.close()


@pytest.mark.parametrize("name", ["catalog.sqlite3", "groups.sqlite3"])
def test_what_sqlite_reports_is_typed(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.storage.sqlite.BUSY_TIMEOUT_S", 0.01)
    with penstock.open(tmp_path) as broker:
        broker.create_topic("t")
        database = broker._catalog if name.startswith("catalog") else broker._groups
        database._connection.execute("PRAGMA busy_timeout=10")

        def write() -> None:
            if name.startswith("catalog"):
                broker.alter_topic("t", retention_ms=5)
            else:
                broker.reset_offsets("g", "t", "latest")

        write()
        foreign = sqlite3.connect(tmp_path / name, isolation_level=None)
        foreign.execute("BEGIN EXCLUSIVE")
        with pytest.raises(penstock.LockedError, match="locked by another program"):
            write()
        foreign.execute("ROLLBACK")
        foreign.close()
        write()
        database._connection.execute("PRAGMA query_only=1")
        with pytest.raises(penstock.DataDirectoryError, match="cannot be used"):
            write()
        database._connection.execute("PRAGMA query_only=0")
        pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
        database._connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(penstock.DiskFullError, match="no room"):
            for number in range(500):
                if name.startswith("catalog"):
                    broker.create_topic(f"long-{number:0200d}")
                else:
                    broker.reset_offsets(f"{number:0200d}", "t", "latest")
        database._connection.execute("PRAGMA max_page_count=1000000")
        write()
    (tmp_path / name).write_bytes(b"not a database, and long enough to be taken for one" * 100)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"{name}{suffix}").unlink(missing_ok=True)
    with pytest.raises(penstock.CorruptionError, match="damaged"):
        penstock.open(tmp_path)


def test_no_room_to_give_up_a_partition_is_tried_again(broker: penstock.Broker) -> None:
    broker.create_topic("t", partitions=2)
    first = broker.consumer("t", group="g")
    settle(first)
    second = broker.consumer("t", group="g")
    second.poll(timeout=0)
    broker._groups._connection.execute("PRAGMA query_only=1")
    with pytest.raises(penstock.DataDirectoryError):
        first.poll(timeout=0)
    broker._groups._connection.execute("PRAGMA query_only=0")
    settle(first, second)
    assert len(first.assignment()) == len(second.assignment()) == 1
    broker._groups._connection.execute("PRAGMA query_only=1")
    with pytest.raises(penstock.DataDirectoryError):
        first.close()
    broker._groups._connection.execute("PRAGMA query_only=0")
    first.close()
    settle(second)
    assert len(second.assignment()) == 2
    second.close()


def test_a_broker_closes_although_the_group_cannot_be_told(tmp_path: Path) -> None:
    broker = penstock.open(tmp_path)
    broker.create_topic("t")
    consumer = broker.consumer("t", group="g")
    consumer.poll(timeout=0)
    broker._groups._connection.execute("PRAGMA query_only=1")
    with pytest.raises(penstock.DataDirectoryError):
        broker.close()
    assert broker.closed and consumer.closed
    with penstock.open(tmp_path) as again, again.consumer("t", group="g") as successor:
        again._keeper.look_after_others()
        settle(successor)
        assert successor.assignment() == {P0}
