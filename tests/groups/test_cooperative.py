"""A member that joins or leaves: what stays with its owner is read on without a pause, and nothing twice."""

from __future__ import annotations

from collections import Counter

import pytest

import penstock
from penstock import TopicPartition

PARTITIONS = 6


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "sticky", "range"])
def test_a_join_holds_up_nothing_that_stays_and_repeats_nothing(broker: penstock.Broker, strategy: str) -> None:
    topic = broker.create_topic("t", partitions=PARTITIONS)
    stored, seen = 0, Counter[tuple[int, int]]()
    moved: list[set[TopicPartition]] = [set(), set()]  # given up by the first, taken by the second

    def produce() -> None:
        nonlocal stored
        for number in range(PARTITIONS):
            topic.append(b"x", partition=number)
        stored += PARTITIONS

    def read(consumer: penstock.Consumer) -> list[penstock.Record]:
        records = consumer.poll(timeout=0)
        seen.update((record.partition, record.offset) for record in records)
        return records

    options = {"group": "g", "partition_assignment_strategy": strategy, "enable_auto_commit": False}
    first = broker.consumer("t", on_revoked=lambda places: (moved[0].update(places), first.commit()), **options)
    produce()
    while len(first.assignment()) < PARTITIONS:
        read(first)
    read(first)
    for _ in range(5):
        second = broker.consumer("t", on_assigned=moved[1].update, **options)
        for _ in range(6):
            kept = first.assignment()
            produce()
            records = read(first)
            stays = kept & first.assignment()
            # every partition that it had and has was read by this very call: the newest record is among them
            assert {TopicPartition("t", record.partition) for record in records} >= stays
            read(second)
        assert moved[0] == moved[1] == second.assignment() and len(second.assignment()) == PARTITIONS // 2
        second.commit()
        second.close()
        for _ in range(3):
            read(first)
        assert len(first.assignment()) == PARTITIONS
        moved[0].clear()
        moved[1].clear()
    produce()
    read(first)
    assert len(seen) == stored and set(seen.values()) == {1}
    first.close()
