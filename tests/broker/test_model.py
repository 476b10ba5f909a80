"""A partition against a plain list, by random steps, with rolls and reopenings."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import penstock

T0 = penstock.TopicPartition("t", 0)
VALUE = st.binary(max_size=40)


class LogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.path = Path(self.temporary.name)
        self.values: list[bytes] = []
        self.start = 0
        self.position = 0
        self.broker = penstock.open(self.path)
        self.broker.create_topic("t", segment_bytes=1 << 20)
        self.open_handles()

    def open_handles(self) -> None:
        self.topic = self.broker.topic("t")
        self.consumer = self.broker.consumer("t")
        self.consumer.seek(T0, self.position)

    @rule(value=VALUE)
    def append(self, value: bytes) -> None:
        assert self.topic.append(value).offset == len(self.values)
        self.values.append(value)

    @rule(seed=VALUE, count=st.integers(1, 4))
    def append_large(self, seed: bytes, count: int) -> None:
        for n in range(count):
            self.append(seed + bytes([n]) * 400_000)

    @rule(values=st.lists(VALUE, max_size=50), codec=st.sampled_from(["none", "gzip", "lz4"]))
    def send_many(self, values: list[bytes], codec: str) -> None:
        with self.broker.producer(batch_size=256, compression_type=codec) as producer:
            producer.send_many("t", values)
        self.values += values

    @rule(count=st.integers(1, 60))
    def read(self, count: int) -> None:
        self.position = max(self.position, self.start)  # auto_offset_reset="earliest"
        wanted = list(enumerate(self.values))[self.position : self.position + count]
        got: list[tuple[int, bytes]] = []
        while len(got) < len(wanted):
            records = self.consumer.poll(max_records=count - len(got), timeout=5.0)
            assert records
            got += [(record.offset, record.value) for record in records]
        assert got == wanted
        self.position += len(got)

    @rule(data=st.data())
    def seek(self, data: st.DataObject) -> None:
        self.position = data.draw(st.integers(self.start, len(self.values)))
        self.consumer.seek(T0, self.position)

    @precondition(lambda self: self.values)
    @rule(data=st.data())
    def delete_records(self, data: st.DataObject) -> None:
        before = data.draw(st.integers(0, len(self.values)))
        self.start = max(self.start, before)
        assert self.broker.delete_records(T0, before) == self.start
        if self.position < self.start:  # what was fetched before may still be delivered, as with Kafka
            self.consumer.close()
            self.open_handles()

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        old = self.broker
        if clean:
            old.close()
        self.broker = penstock.open(self.path)
        self.position = max(self.position, self.start)
        self.open_handles()
        old.close()

    @invariant()
    def bounds(self) -> None:
        log = self.topic.log(0)
        assert (log.log_start_offset, log.log_end_offset) == (self.start, len(self.values))
        bases = log.segments()
        assert bases[0] <= self.start or len(bases) == 1

    def teardown(self) -> None:
        with self.broker.consumer() as consumer:
            consumer.assign([T0])
            consumer.seek(T0, self.start)
            got: list[bytes] = []
            while len(got) < len(self.values) - self.start:
                got += [record.value for record in consumer.poll(timeout=5.0)]
        assert got == self.values[self.start :]
        self.broker.close()
        assert penstock.verify(self.path).ok
        self.temporary.cleanup()


LogMachine.TestCase.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLog = LogMachine.TestCase
