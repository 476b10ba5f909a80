"""Committed offsets: what is kept, who may commit, resetting, lag, expiry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import penstock
from penstock import FencedError, InvalidArgumentError, InvalidTypeError, OffsetAndMetadata, TopicPartition

PLACE = TopicPartition("t", 0)


@pytest.fixture
def topic(broker: penstock.Broker) -> penstock.Topic:
    made = broker.create_topic("t")
    for n in range(10):
        made.append(b"%d" % n, timestamp_ms=1_000_000 + n * 1000)
    return made


def values(consumer: penstock.Consumer, count: int = 500) -> list[bytes | None]:
    return [record.value for record in consumer.poll(max_records=count, timeout=0)]


@pytest.mark.usefixtures("topic")
class TestCommit:
    def test_auto_commit_counts_what_was_delivered_before_the_last_call(self, broker: penstock.Broker) -> None:
        consumer = broker.consumer("t", group="g")
        assert values(consumer, 3) == [b"0", b"1", b"2"]
        assert consumer.committed(PLACE) in (None, 0)
        assert values(consumer, 3) == [b"3", b"4", b"5"]
        assert consumer.committed(PLACE) == 3
        consumer.close()
        with broker.consumer("t", group="g") as again:
            assert values(again, 1) == [b"6"]

    def test_an_exception_commits_nothing_more(self, broker: penstock.Broker) -> None:
        with pytest.raises(KeyError), broker.consumer("t", group="g") as consumer:
            values(consumer, 3)
            values(consumer, 3)
            raise KeyError
        with broker.consumer("t", group="g") as again:
            assert values(again, 1) == [b"3"]

    def test_iteration_commits_too(self, broker: penstock.Broker) -> None:
        with broker.consumer("t", group="g") as consumer:
            for record in consumer:
                if record.offset == 4:
                    break
        with broker.consumer("t", group="g") as again:
            assert values(again, 1) == [b"5"]

    def test_by_hand(self, broker: penstock.Broker) -> None:
        with broker.consumer("t", group="g", enable_auto_commit=False) as consumer:
            records = consumer.poll(max_records=6, timeout=0)
            consumer.commit(records[2])
            assert consumer.committed(PLACE) == 3
            consumer.commit()
            assert consumer.committed(PLACE) == 6
            consumer.commit({PLACE: OffsetAndMetadata(2, "why")})
            assert consumer.committed_metadata(PLACE) == OffsetAndMetadata(2, "why")
            consumer.commit({PLACE: 1})
            assert consumer.committed_metadata(PLACE) == OffsetAndMetadata(1, "")
            consumer.poll(timeout=0)
        with broker.consumer("t", group="g") as again:
            assert values(again, 1) == [b"1"]

    def test_another_broker_sees_it_at_once(self, broker: penstock.Broker) -> None:
        with broker.consumer("t", group="g") as consumer, penstock.open(broker.path) as other:
            values(consumer)
            consumer.commit()
            assert other.describe_group("g").partitions[0].committed == 10

    @pytest.mark.parametrize("bad", [-1, 1 << 60, True, "3", 1.5, OffsetAndMetadata(1, "x" * 5000)])
    def test_bad_offsets_are_refused(self, broker: penstock.Broker, bad: object) -> None:
        with broker.consumer("t", group="g") as consumer:
            values(consumer)
            with pytest.raises((InvalidArgumentError, InvalidTypeError)):
                consumer.commit({PLACE: bad})  # type: ignore[dict-item]

    def test_without_a_group(self, broker: penstock.Broker) -> None:
        with broker.consumer("t") as consumer:
            with pytest.raises(InvalidArgumentError, match="no group"):
                consumer.commit()
            with pytest.raises(InvalidArgumentError, match="no group"):
                consumer.committed(PLACE)

    def test_assigned_by_hand_it_commits_while_nobody_owns(self, broker: penstock.Broker) -> None:
        with broker.consumer(group="g") as consumer:
            consumer.assign([PLACE])
            values(consumer, 4)
            consumer.commit()
            with broker.consumer("t", group="g") as member:
                assert values(member, 1) == [b"4"]
                with pytest.raises(FencedError):
                    consumer.commit()
        assert broker.describe_group("g").partitions[0].committed == 5

    def test_offsets_survive_a_reopen(self, tmp_path: Path, broker: penstock.Broker) -> None:
        with broker.consumer("t", group="g") as consumer:
            values(consumer, 7)
        broker.close()
        with penstock.open(tmp_path / "data") as again, again.consumer("t", group="g") as consumer:
            assert values(consumer, 1) == [b"7"]


@pytest.mark.usefixtures("topic")
class TestReset:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"to": "earliest"}, 0), ({"to": "latest"}, 10), ({"to": 4}, 4), ({"to": 99}, 10), ({"shift_by": -2}, 3),
            ({"shift_by": -50}, 0), ({"to": datetime.fromtimestamp(1006, UTC)}, 6),
            ({"to": datetime.fromtimestamp(5000, UTC)}, 10), ({"to": timedelta(days=1)}, 10), ({"to": 10**11}, 10),
        ],
    )  # fmt: skip
    def test_everywhere(self, broker: penstock.Broker, options: dict[str, object], expected: int) -> None:
        broker.reset_offsets("g", "t", 5)
        assert broker.reset_offsets("g", "t", **options, dry_run=True) == {PLACE: expected}
        assert broker.describe_group("g").partitions[0].committed == 5
        assert broker.reset_offsets("g", "t", **options) == {PLACE: expected}
        assert broker.describe_group("g").partitions[0].committed == expected

    def test_while_the_group_reads(self, broker: penstock.Broker) -> None:
        lost: list[TopicPartition] = []
        with broker.consumer("t", group="g", enable_auto_commit=False, on_lost=lost.extend) as consumer:
            assert len(values(consumer)) == 10
            broker.reset_offsets("g", "t", 8)
            with pytest.raises(FencedError):
                consumer.commit()
            assert values(consumer) == [b"8", b"9"]
            assert lost == [PLACE]
            consumer.commit()
            assert consumer.committed(PLACE) == 10

    @pytest.mark.parametrize(
        "options", [{}, {"to": 1, "shift_by": 1}, {"to": "none"}, {"to": -1}, {"to": 1.5}, {"to": "x"}]
    )
    def test_nonsense_is_refused(self, broker: penstock.Broker, options: dict[str, object]) -> None:
        with pytest.raises(penstock.PenstockError):
            broker.reset_offsets("g", "t", **options)
        assert broker.groups() == []


@pytest.mark.usefixtures("topic")
class TestGroups:
    def test_describe(self, broker: penstock.Broker) -> None:
        with broker.consumer("t", group="g", client_id="me") as consumer:
            values(consumer, 4)
            values(consumer, 1)
            found = broker.describe_group("g")
            assert (found.name, found.state, found.lag) == ("g", "stable", 6)
            assert found.partition_assignment_strategy == "cooperative-sticky"
            assert found.members[0].client_id == "me" and found.members[0].partitions == [PLACE]
            assert found.partitions[0].member_id == consumer.member_id == found.members[0].member_id
            assert found.partitions[0].lag_ms == pytest.approx(broker.clock.time_ms() - 1_004_000, abs=60_000)
        assert broker.describe_group("g").state == "empty"

    def test_delete(self, broker: penstock.Broker) -> None:
        with broker.consumer("t", group="g") as consumer:
            values(consumer)
            with pytest.raises(penstock.GroupNotEmptyError):
                broker.delete_group("g")
        broker.delete_group("g")
        assert broker.groups() == []
        with pytest.raises(penstock.UnknownGroupError, match="'g'"):
            broker.delete_group("g")
        with broker.consumer("t", group="g") as consumer:
            assert len(values(consumer)) == 10

    def test_offsets_expire_seven_days_after_the_last_member(self, tmp_path: Path) -> None:
        clock = penstock.VirtualClock()
        with penstock.open(tmp_path / "other", clock=clock) as broker:
            broker.create_topic("t", retention_ms=-1).append(b"v")
            with broker.consumer("t", group="g") as consumer:
                values(consumer)
            clock.advance(6.9 * 86400)
            broker.maintain()
            assert broker.groups() == ["g"]
            clock.advance(0.2 * 86400)
            broker.maintain()
            assert broker.groups() == []
