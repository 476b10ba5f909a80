"""A consumer against plain lists, under random seeks, reads and pauses (hypothesis)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import penstock
from penstock._native.builder import BatchBuilder
from penstock.streams.topic_partition import TopicPartition

PARTITIONS = [TopicPartition("model", number) for number in range(3)]
some_partition = st.sampled_from(PARTITIONS)


class ConsumerModel(RuleBasedStateMachine):
    """`stored` is what each partition holds, `expected` the next offset the consumer has to deliver of it."""

    @initialize(fetch_max_bytes=st.sampled_from([1, 200, 1000, 1 << 20]))
    def open(self, fetch_max_bytes: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.broker = penstock.open(Path(self.directory.name) / "data", fsync="never")
        self.broker.create_topic("model", partitions=len(PARTITIONS))
        self.consumer = self.broker.consumer("model", fetch_max_bytes=fetch_max_bytes)
        self.stored: dict[TopicPartition, list[bytes]] = {partition: [] for partition in PARTITIONS}
        self.expected = dict.fromkeys(PARTITIONS, 0)
        self.starts = dict.fromkeys(PARTITIONS, 0)
        self.paused: set[TopicPartition] = set()

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            self.broker.close()
            self.directory.cleanup()

    def undelivered(self) -> int:
        return sum(
            len(self.stored[partition]) - max(self.expected[partition], self.starts[partition])
            for partition in PARTITIONS
            if partition not in self.paused
        )

    def deliver(self, partition: TopicPartition, offset: int, value: bytes | None) -> None:
        assert partition not in self.paused
        if self.expected[partition] < self.starts[partition]:  # retention passed it by; "earliest" goes on at the start
            assert offset == self.starts[partition] or offset == self.expected[partition]  # the latter: fetched before
        else:
            assert offset == self.expected[partition]
        assert value == self.stored[partition][offset]
        self.expected[partition] = offset + 1

    @rule(partition=some_partition, count=st.integers(1, 12), size=st.integers(0, 60))
    def append(self, partition: TopicPartition, count: int, size: int) -> None:
        start = len(self.stored[partition])
        values = [b"%d:" % number + b"x" * size for number in range(start, start + count)]
        batch = BatchBuilder()
        for value in values:
            batch.append(value, None, None, 1000)
        batch.seal()
        self.broker._log(*partition).append(batch)
        self.stored[partition] += values

    @rule(max_records=st.integers(1, 30))
    def poll(self, max_records: int) -> None:
        before = self.undelivered()
        records = self.consumer.poll(max_records=max_records, timeout=0)
        assert len(records) >= min(before, max_records)
        assert len(records) <= max_records
        for record in records:
            self.deliver(TopicPartition(record.topic, record.partition), record.offset, record.value)

    @rule(count=st.integers(1, 10))
    def iterate(self, count: int) -> None:
        for _ in range(min(count, self.undelivered())):
            record = next(self.consumer)
            self.deliver(TopicPartition(record.topic, record.partition), record.offset, record.value)

    @rule(max_bytes=st.one_of(st.none(), st.integers(1, 2000)))
    def poll_batches(self, max_bytes: int | None) -> None:
        before = self.undelivered()
        batches = self.consumer.poll_batches(timeout=0, max_bytes=max_bytes)
        assert before == 0 or batches
        for batch in batches:
            for offset, value in zip(batch.offsets, batch.values(), strict=True):
                self.deliver(TopicPartition(batch.topic, batch.partition), int(offset), value)

    @rule(partition=some_partition, data=st.data())
    def seek(self, partition: TopicPartition, data: st.DataObject) -> None:
        offset = data.draw(st.integers(self.starts[partition], len(self.stored[partition])))
        self.consumer.seek(partition, offset)
        self.expected[partition] = offset

    @rule(partition=some_partition)
    def seek_to_end(self, partition: TopicPartition) -> None:
        self.consumer.seek_to_end(partition)
        self.expected[partition] = len(self.stored[partition])

    @rule(partition=some_partition)
    def pause(self, partition: TopicPartition) -> None:
        self.consumer.pause(partition)
        self.paused.add(partition)

    @rule(partition=some_partition)
    def resume(self, partition: TopicPartition) -> None:
        self.consumer.resume(partition)
        self.paused.discard(partition)

    @rule(partition=some_partition, data=st.data())
    def delete_records(self, partition: TopicPartition, data: st.DataObject) -> None:
        before = data.draw(st.integers(self.starts[partition], len(self.stored[partition])))
        self.starts[partition] = self.broker.delete_records(partition, before)

    @invariant()
    def positions_are_next_undelivered_offsets(self) -> None:
        if hasattr(self, "broker"):
            for partition, start in self.starts.items():
                if self.expected[partition] < start == self.consumer.position(partition):
                    self.expected[partition] = start  # a read noticed that retention passed it by
            assert {partition: self.consumer.position(partition) for partition in PARTITIONS} == self.expected
            assert self.consumer.paused() == self.paused


ConsumerModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestConsumerModel = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")(ConsumerModel.TestCase)
