"""The consumer for asyncio: what is delivered is decided by the loop's thread, between two awaits.

Invariant: no await lies between taking records and returning them, so that a cancelled call has taken none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import penstock
from penstock.aio.wake import SLICE_S
from penstock.errors import ClosedError

if TYPE_CHECKING:
    from penstock.aio.broker import AsyncBroker

BREATH = 256  # records between two chances for other tasks
_T = TypeVar("_T")


class AsyncConsumer:
    """Made by `AsyncBroker.consumer`. One task at a time reads; everything that does not wait is a plain method."""

    def __init__(self, broker: AsyncBroker, sync: penstock.Consumer) -> None:
        self._broker = broker
        self.sync = sync
        self._bell = broker.sync._bell
        self._until_breath = BREATH

    # --- reading -----------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncConsumer:
        return self

    async def __anext__(self) -> penstock.Record:
        self._until_breath -= 1
        if self._until_breath <= 0:
            self._until_breath = BREATH
            await asyncio.sleep(0)
        while not self.sync.closed:
            record = self.sync._next_ready()
            if record is not None:
                return record
            seen = self._bell.arm()
            record = None if self.sync.closed else self.sync._next_ready()
            if record is not None:
                return record
            await self._broker.waker().wait(seen, SLICE_S)
        raise StopAsyncIteration

    async def poll(self, max_records: int | None = None, timeout: float | None = 1.0) -> list[penstock.Record]:
        """As `Consumer.poll`: up to `max_records` records, [] when none came in `timeout` seconds (None: for ever)."""
        return await self._until(lambda: self.sync.poll(max_records, 0), timeout)

    async def poll_batches(
        self,
        timeout: float | None = 1.0,
        max_bytes: int | None = None,
    ) -> list[penstock.RecordBatch]:
        """As `Consumer.poll_batches`."""
        return await self._until(lambda: self.sync.poll_batches(0, max_bytes), timeout)

    async def _until(self, look: Callable[[], list[_T]], timeout: float | None) -> list[_T]:
        clock = self._broker.sync.clock
        deadline = None if timeout is None else clock.monotonic() + timeout
        await asyncio.sleep(0)
        while True:
            seen = self._bell.arm()
            found = look()
            remaining = SLICE_S if deadline is None else deadline - clock.monotonic()
            if found or remaining <= 0:
                return found
            await self._broker.waker().wait(seen, min(remaining, SLICE_S))
            if self.sync.closed:
                raise ClosedError("the consumer was closed while it waited")

    # --- what does not wait ------------------------------------------------------------------------------------------

    def subscribe(self, *topics: str, pattern: str | None = None) -> None:
        """As `Consumer.subscribe`."""
        self.sync.subscribe(*topics, pattern=pattern)

    def assign(self, partitions: Iterable[penstock.TopicPartition]) -> None:
        """As `Consumer.assign`."""
        self.sync.assign(partitions)

    def assignment(self) -> set[penstock.TopicPartition]:
        """As `Consumer.assignment`."""
        return self.sync.assignment()

    def pause(self, *partitions: penstock.TopicPartition) -> None:
        """As `Consumer.pause`."""
        self.sync.pause(*partitions)

    def resume(self, *partitions: penstock.TopicPartition) -> None:
        """As `Consumer.resume`."""
        self.sync.resume(*partitions)

    def position(self, partition: penstock.TopicPartition) -> int:
        """As `Consumer.position`."""
        return self.sync.position(partition)

    def seek(self, partition: penstock.TopicPartition, offset: int) -> None:
        """As `Consumer.seek`."""
        self.sync.seek(partition, offset)

    def seek_to_beginning(self, *partitions: penstock.TopicPartition) -> None:
        """As `Consumer.seek_to_beginning`."""
        self.sync.seek_to_beginning(*partitions)

    def seek_to_end(self, *partitions: penstock.TopicPartition) -> None:
        """As `Consumer.seek_to_end`."""
        self.sync.seek_to_end(*partitions)

    def seek_to_committed(self) -> None:
        """As `Consumer.seek_to_committed`."""
        self.sync.seek_to_committed()

    def seek_to_timestamp(self, partition: penstock.TopicPartition, timestamp_ms: int) -> int:
        """As `Consumer.seek_to_timestamp`."""
        return self.sync.seek_to_timestamp(partition, timestamp_ms)

    def committed(self, partition: penstock.TopicPartition) -> int | None:
        """As `Consumer.committed`."""
        return self.sync.committed(partition)

    def lag(self) -> dict[penstock.TopicPartition, int]:
        """As `Consumer.lag`."""
        return self.sync.lag()

    async def commit(
        self,
        offsets: penstock.Record | Mapping[penstock.TopicPartition, int | penstock.OffsetAndMetadata] | None = None,
    ) -> None:
        """As `Consumer.commit`; in a thread where it waits for the disk."""
        if self._broker.sync.fsync == "always":
            await asyncio.to_thread(self.sync.commit, offsets)
        else:
            self.sync.commit(offsets)

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.sync.closed

    async def close(self) -> None:
        """As `Consumer.close`; a task that waits in it wakes up, and `async for` ends."""
        self.sync.close()

    async def __aenter__(self) -> AsyncConsumer:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self.sync._end(commit=kind is None)
