"""Members of a group in one process: who reads what, callbacks, fencing, static members, patterns."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import pytest

import penstock
from penstock import FencedError, InvalidConfigError, Subscriptions, TopicPartition

P0, P1, P2, P3 = (TopicPartition("t", number) for number in range(4))


def fill(broker: penstock.Broker, each: int = 10, partitions: int = 4) -> penstock.Topic:
    topic = broker.create_topic("t", partitions=partitions)
    for number in range(partitions):
        for n in range(each):
            topic.append(b"%d/%d" % (number, n), partition=number)
    return topic


def settle(*consumers: penstock.Consumer) -> list[set[TopicPartition]]:
    for _ in range(3):
        for consumer in consumers:
            consumer.poll(timeout=0)
    return [consumer.assignment() for consumer in consumers]


def test_members_share_the_partitions_and_read_everything_once(broker: penstock.Broker) -> None:
    fill(broker)
    with broker.consumer("t", group="g") as first, broker.consumer("t", group="g") as second:
        seen = []
        for _ in range(6):
            seen += first.poll(timeout=0) + second.poll(timeout=0)
        assert sorted(record.value for record in seen) == sorted(b"%d/%d" % (p, n) for p in range(4) for n in range(10))
        mine, others = settle(first, second)
        assert len(mine) == len(others) == 2 and not mine & others


def test_only_partitions_that_move_pause(broker: penstock.Broker) -> None:
    fill(broker)
    events: list[tuple[str, list[TopicPartition]]] = []
    with broker.consumer(
        "t", group="g",
        on_assigned=lambda places: events.append(("assigned", places)),
        on_revoked=lambda places: events.append(("revoked", places)),
        on_lost=lambda places: events.append(("lost", places)),
    ) as first:  # fmt: skip
        settle(first)
        with broker.consumer("t", group="g") as second:
            settle(first, second)
            assert events[0] == ("assigned", [P0, P1, P2, P3])
            assert [name for name, _ in events] == ["assigned", "revoked"] and len(events[1][1]) == 2
        settle(first)
        assert [name for name, _ in events] == ["assigned", "revoked", "assigned"]
        assert sorted(events[2][1]) == sorted(events[1][1])
    assert events[3][0] == "revoked" and len(events[3][1]) == 4


def test_a_listener_may_commit_and_seek(broker: penstock.Broker) -> None:
    fill(broker)
    noted: dict[TopicPartition, int] = {}

    def revoked(places: list[TopicPartition]) -> None:
        noted.update({place: consumer.position(place) for place in places})
        consumer.commit(dict.fromkeys(places, 7))

    consumer = broker.consumer("t", group="g", enable_auto_commit=False, on_revoked=revoked)
    settle(consumer)
    consumer.close()
    assert set(noted.values()) == {10}
    with broker.consumer("t", group="g") as other:
        assert sorted(record.value for record in other.poll()) == [
            b"%d/%d" % (p, n) for p in range(4) for n in (7, 8, 9)
        ]


def test_a_listener_that_raises_is_heard_and_the_group_goes_on(broker: penstock.Broker) -> None:
    fill(broker)

    def assigned(_: list[TopicPartition]) -> None:
        raise RuntimeError("no")

    consumer = broker.consumer("t", group="g", on_assigned=assigned)
    with pytest.raises(RuntimeError, match="no"):
        consumer.poll(timeout=0)
    assert len(consumer.poll(timeout=0)) == 40
    consumer.close()


def test_a_member_that_was_removed_is_fenced_and_comes_back(broker: penstock.Broker) -> None:
    fill(broker)
    lost: list[TopicPartition] = []
    with broker.consumer("t", group="g", enable_auto_commit=False, on_lost=lost.extend) as consumer:
        assert len(consumer.poll(max_records=25, timeout=0)) == 25
        name = consumer.member_id
        assert consumer._part is not None and consumer._part._member is not None
        consumer._part._member.evict()
        with pytest.raises(FencedError, match="t-0"):
            consumer.commit()
        with pytest.raises(FencedError):
            consumer.commit({P0: 3})
        assert len(consumer.poll(timeout=0)) == 40  # from the committed offsets: there are none
        assert lost == [P0, P1, P2, P3] and consumer.member_id != name
        consumer.commit()


def test_a_consumer_that_does_not_poll_leaves_its_partitions(broker: penstock.Broker) -> None:
    fill(broker)
    stuck = broker.consumer("t", group="g", max_poll_interval_ms=200)
    settle(stuck)
    with broker.consumer("t", group="g") as other:
        deadline = time.monotonic() + 20
        while len(other.assignment()) < 4 and time.monotonic() < deadline:
            other.poll(timeout=0.05)
        assert len(other.assignment()) == 4
    stuck.close()


def test_a_consumer_that_was_dropped_leaves_its_partitions(broker: penstock.Broker) -> None:
    fill(broker)
    dropped = broker.consumer("t", group="g")
    settle(dropped)
    del dropped
    gc.collect()
    with broker.consumer("t", group="g") as other:
        deadline = time.monotonic() + 20
        while len(other.assignment()) < 4 and time.monotonic() < deadline:
            other.poll(timeout=0.05)
        assert len(other.assignment()) == 4


def test_one_thread_blocked_one_thread_joining(broker: penstock.Broker) -> None:
    topic = fill(broker, each=0)
    first, second = broker.consumer("t", group="g"), broker.consumer("t", group="g")
    seen: list[bytes | None] = []

    def read(consumer: penstock.Consumer) -> None:
        for record in consumer:
            seen.append(record.value)

    threads = [threading.Thread(target=read, args=(consumer,)) for consumer in (first, second)]
    for thread in threads:
        thread.start()
    for n in range(200):
        topic.append(b"%d" % n, partition=n % 4)
    deadline = time.monotonic() + 20
    while len(seen) < 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    first.close()
    second.close()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted(b"%d" % n for n in range(200))


def test_a_static_member_keeps_its_partitions_over_a_restart(broker: penstock.Broker) -> None:
    fill(broker)
    first = broker.consumer("t", group="g", group_instance_id="one")
    second = broker.consumer("t", group="g", group_instance_id="two")
    before, others = settle(first, second)
    first.close()
    assert settle(second) == [others]
    again = broker.consumer("t", group="g", group_instance_id="one")
    assert settle(again, second) == [before, others]
    again.close()
    second.close()


def test_a_static_member_that_stays_away_loses_its_partitions(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        fill(broker)
        broker.consumer("t", group="g", group_instance_id="one").close()
        with broker.consumer("t", group="g") as other:
            assert len(settle(other)[0]) == 2
            clock.advance(46)
            deadline = time.monotonic() + 20
            while len(other.assignment()) < 4 and time.monotonic() < deadline:
                other.poll(timeout=0)
                time.sleep(0.02)
            assert len(other.assignment()) == 4


def test_the_second_holder_of_a_static_id_is_fenced(broker: penstock.Broker) -> None:
    fill(broker)
    with broker.consumer("t", group="g", group_instance_id="one") as first:
        with pytest.raises(FencedError, match="'one'"):
            broker.consumer("t", group="g", group_instance_id="one")
        assert len(first.poll(timeout=0)) == 40


def test_patterns_take_up_new_topics_and_partitions(broker: penstock.Broker) -> None:
    fill(broker, partitions=1)
    with broker.consumer(group="g") as consumer:
        consumer.subscribe(pattern="t.*")
        assert len(consumer.poll(timeout=0)) == 10
        broker.create_topic("t2").append(b"new")
        broker.create_topic("other").append(b"not mine")
        broker.alter_topic("t", partitions=2)
        broker.topic("t").append(b"more", partition=1)
        seen = [record.value for _ in range(4) for record in consumer.poll(timeout=0)]
        assert sorted(v for v in seen if v) == [b"more", b"new"]
        broker.delete_topic("t2")
        consumer.poll(timeout=0)
        consumer.poll(timeout=0)
        assert consumer.assignment() == {P0, P1}


def test_a_topic_made_again_has_no_offsets(broker: penstock.Broker) -> None:
    fill(broker)
    with broker.consumer("t", group="g") as consumer:
        consumer.poll(timeout=0)
    broker.delete_topic("t")
    fill(broker, each=1)
    with broker.consumer("t", group="g") as consumer:
        assert len(consumer.poll(timeout=0)) == 4


def test_single_active_consumer_fails_over(broker: penstock.Broker) -> None:
    fill(broker)
    first = broker.consumer("t", group="g", single_active_consumer=True)
    second = broker.consumer("t", group="g", single_active_consumer=True)
    assert [len(held) for held in settle(first, second)] == [4, 0]
    first.close()
    assert [len(held) for held in settle(second)] == [4]
    second.close()


def test_ones_own_assignor(broker: penstock.Broker) -> None:
    fill(broker)

    def odd_ones_out(subscriptions: Subscriptions) -> dict[TopicPartition, str]:
        first, *_ = sorted(subscriptions.members)
        return {P1: first, P3: first}

    with broker.consumer("t", group="g", partition_assignment_strategy=odd_ones_out) as consumer:
        assert settle(consumer) == [{P1, P3}]


def test_another_strategy_than_the_groups_is_refused(broker: penstock.Broker) -> None:
    fill(broker)
    with (
        broker.consumer("t", group="g"),
        pytest.raises(InvalidConfigError, match=r"'range'.*'cooperative-sticky'"),
    ):
        broker.consumer("t", group="g", partition_assignment_strategy="range")


@pytest.mark.parametrize(
    "options",
    [
        {"group": ""}, {"group": 7}, {"group": "a\nb"}, {"group": "g" * 250}, {"group": "g", "group_instance_id": ""},
        {"group": "g", "client_id": 3}, {"group": "g", "session_timeout_ms": 0}, {"group": "g", "on_lost": 5},
        {"group": "g", "max_poll_interval_ms": -1}, {"group": "g", "partition_assignment_strategy": "best"},
    ],
)  # fmt: skip
def test_bad_options_make_no_member(broker: penstock.Broker, options: dict[str, object]) -> None:
    fill(broker)
    with pytest.raises(penstock.PenstockError):
        broker.consumer("t", **options)
    assert all(not broker.describe_group(name).members for name in broker.groups())
