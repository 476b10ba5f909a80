"""What a process that owns no partition knows of sagas: the rows of the last checkpoint, and the log from there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import penstock
from penstock.events.errors import UNREADABLE
from penstock.events.sagas.entry import Entry, decode_record
from penstock.events.sagas.state import SagaState, apply

if TYPE_CHECKING:
    from penstock.events.sagas.sagas import Sagas


class View:
    """Follows all partitions; any thread, one at a time. In memory is what came since the checkpoints."""

    def __init__(self, sagas: Sagas) -> None:
        self._sagas = sagas
        self._store = sagas._store
        self._lock = threading.Lock()
        self._consumer: penstock.Consumer | None = None
        self._states: dict[int, dict[str, SagaState]] = {}

    def find(self, saga_id: str) -> SagaState | None:
        """A saga as the log has it now."""
        with self._lock:
            self._catch_up(0)
            state = next((states[saga_id] for states in self._states.values() if saga_id in states), None)
        return self._store.load(saga_id) if state is None else state

    def recent(self) -> dict[str, SagaState]:
        """All that changed since the last checkpoints, as the log has it now."""
        with self._lock:
            self._catch_up(0)
            return {saga_id: state for states in self._states.values() for saga_id, state in states.items()}

    def wait(self, timeout: float) -> None:
        """Until something came in the log, at most so long."""
        if self._lock.acquire(timeout=timeout):
            try:
                self._catch_up(timeout)
            finally:
                self._lock.release()

    def _catch_up(self, timeout: float) -> None:
        consumer = self._follow()
        topic = self._sagas.topic
        for partition, offset in self._store.checkpoints().items():
            place = penstock.TopicPartition(topic, partition)
            if offset > consumer.position(place) and offset <= consumer.end_offsets([place])[place]:
                consumer.seek(place, offset)
                self._states[partition] = {}
        # what comes later is for the next time: a log that grows while it is read would keep us here
        ends = consumer.end_offsets(consumer.assignment())
        while batches := consumer.poll_batches(timeout=timeout):
            timeout = 0
            for batch in batches:
                self._receive(batch)
            if all(consumer.position(place) >= end for place, end in ends.items()):
                return

    def _follow(self) -> penstock.Consumer:
        if self._consumer is None or self._consumer.closed:
            topic = self._sagas.topic
            places = [
                penstock.TopicPartition(topic, number) for number in range(self._sagas.broker.topic(topic).partitions)
            ]
            self._consumer = self._sagas.broker.consumer()
            self._consumer.assign(places)
            for place in places:
                self._consumer.seek(place, self._sagas._checkpoint(place.partition))
            self._states = {place.partition: {} for place in places}
        return self._consumer

    def _receive(self, batch: penstock.RecordBatch) -> None:
        states = self._states[batch.partition]
        for offset, key, value in zip(batch.offsets.tolist(), batch.keys(), batch.values(), strict=True):
            found = None if value is None else _decoded(key, value)
            if found is None:
                continue
            saga_id, entry = found
            state = states.get(saga_id)
            if state is None:
                state = states[saga_id] = self._store.load(saga_id) or SagaState(saga_id, offset)
            apply(state, entry, offset)

    def close(self) -> None:
        """Stop following."""
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
            self._consumer, self._states = None, {}


def _decoded(key: bytes | None, value: bytes) -> tuple[str, Entry] | None:
    try:
        return decode_record(key, value)
    except UNREADABLE:
        return None  # the owner of the partition says so in its log
