"""Queues, share groups and exchanges for asyncio.

Invariant: no await lies between acquiring messages and returning them, so that a cancelled `receive` has acquired
none. What waits for the disk (`fsync="always"`) runs in a thread; everything else is as fast as a call and runs in
the loop's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import penstock
from penstock.aio.wake import SLICE_S
from penstock.aio.worker import AsyncWorker
from penstock.queues.share_group import checked_seconds

if TYPE_CHECKING:
    from penstock.aio.queue_methods import QueueMethods

_T = TypeVar("_T")


class AsyncShareGroup:
    """Made by `AsyncBroker.share_consumer`. Any number of tasks may use it."""

    def __init__(self, broker: QueueMethods, sync: penstock.ShareGroup) -> None:
        self._broker = broker
        self.sync = sync

    async def receive(
        self,
        max_messages: int = 10,
        wait: float | None = 20.0,
        visibility_timeout: float | None = None,
        consumer_priority: int = 0,
    ) -> list[penstock.Message]:
        """As `Queue.receive`. Cancelling it leaves every message where it was."""
        with self.sync._precedence(consumer_priority):
            return await self._receive(max_messages, wait, visibility_timeout, consumer_priority)

    async def _receive(
        self, max_messages: int, wait: float | None, visibility_timeout: float | None, priority: int
    ) -> list[penstock.Message]:
        clock = self._broker.sync.clock
        deadline = math.inf if wait is None else clock.monotonic() + checked_seconds("wait", wait)
        while True:
            seen = self.sync._bell.arm()
            found = self.sync.receive(max_messages, 0, visibility_timeout, priority)
            left = deadline - clock.monotonic()
            if found or left <= 0:
                return found
            await self._broker.waker().wait(seen, min(left, self.sync._until_next(), SLICE_S))

    async def __aiter__(self) -> AsyncIterator[penstock.Message]:
        """Messages one by one, for ever; ends when it is closed."""
        while not self.sync._closed:
            for message in await self.receive(1, wait=1.0):
                yield message

    async def ack(self, message: penstock.Message) -> None:
        """As `Message.ack`."""
        await self._call(message.ack)

    async def nack(self, message: penstock.Message, delay: float = 0.0, failed: bool = True) -> None:
        """As `Message.nack`."""
        await self._call(lambda: message.nack(delay, failed))

    async def reject(self, message: penstock.Message, reason: str = "rejected") -> None:
        """As `Message.reject`."""
        await self._call(lambda: message.reject(reason))

    async def ack_many(self, messages: Iterable[penstock.Message]) -> list[penstock.Message]:
        """As `Queue.ack_many`."""
        return await self._call(lambda: self.sync.ack_many(messages))

    async def delete(self, receipt_handle: str) -> None:
        """As `Queue.delete`."""
        await self._call(lambda: self.sync.delete(receipt_handle))

    async def extend(self, message: penstock.Message, seconds: float) -> None:
        """As `Message.extend`."""
        await self._call(lambda: message.extend(seconds))

    async def change_visibility(self, receipt_handle: str, visibility_timeout: float) -> None:
        """As `Queue.change_visibility`."""
        await self._call(lambda: self.sync.change_visibility(receipt_handle, visibility_timeout))

    async def stats(self) -> penstock.QueueStats:
        """As `Queue.stats`."""
        return self.sync.stats()

    async def consume(self, handler: Callable[[penstock.Message], Awaitable[Any]], **options: Any) -> None:
        """Await `handler(message)` for every message until cancelled; `options` and what happens then: see
        `AsyncWorker`."""
        await self.worker(handler, **options).run()

    def worker(self, handler: Callable[[penstock.Message], Awaitable[Any]], **options: Any) -> AsyncWorker:
        """An `AsyncWorker`, to be run or started; see there."""
        return AsyncWorker(self, handler, **options)

    async def _call(self, action: Callable[[], _T]) -> _T:
        if self._broker.sync.fsync == "always":
            return await asyncio.to_thread(action)
        return action()

    async def close(self) -> None:
        """As `ShareGroup.close`."""
        self.sync.close()

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncQueue(AsyncShareGroup):
    """Made by `AsyncBroker.queue`. What is not here and does not wait is on `sync`, the queue."""

    sync: penstock.Queue

    async def send(self, value: Any, **options: Any) -> str:
        """As `Queue.send`."""
        return await self._call(lambda: self.sync.send(value, **options))

    async def send_many(self, values: Iterable[Any], **options: Any) -> int:
        """As `Queue.send_many`."""
        return await asyncio.to_thread(self.sync.send_many, values, **options)

    async def send_batch(self, entries: Iterable[Mapping[str, Any]]) -> list[penstock.BatchResult]:
        """As `Queue.send_batch`."""
        return await self._call(lambda: self.sync.send_batch(entries))

    async def delete_batch(self, receipt_handles: Iterable[str]) -> list[penstock.BatchResult]:
        """As `Queue.delete_batch`."""
        return await self._call(lambda: self.sync.delete_batch(receipt_handles))

    async def change_visibility_batch(self, entries: Iterable[tuple[str, float]]) -> list[penstock.BatchResult]:
        """As `Queue.change_visibility_batch`."""
        return await self._call(lambda: self.sync.change_visibility_batch(entries))

    async def receive_attempt(
        self, attempt_id: str, max_messages: int = 10, wait: float | None = 0.0, visibility_timeout: float | None = None
    ) -> list[penstock.Message]:
        """As `Queue.receive_attempt`, in a thread. A cancelled one may be repeated with the same id."""
        return await asyncio.to_thread(self.sync.receive_attempt, attempt_id, max_messages, wait, visibility_timeout)

    async def attributes(self) -> dict[str, str]:
        """As `Queue.attributes`."""
        return self.sync.attributes()

    async def peek(self, *arguments: Any, **options: Any) -> list[penstock.Message]:
        """As `Queue.peek`."""
        return await asyncio.to_thread(self.sync.peek, *arguments, **options)

    async def purge(self, state: str = "unsettled") -> int:
        """As `Queue.purge`."""
        return await asyncio.to_thread(self.sync.purge, state)

    async def redrive(self, **options: Any) -> penstock.RedriveReport:
        """As `Queue.redrive`. Cancelling it ends the redrive before its next message."""
        return await (await self.start_redrive(**options)).result()

    async def start_redrive(self, **options: Any) -> AsyncRedriveTask:
        """As `Queue.start_redrive`."""
        return AsyncRedriveTask(await asyncio.to_thread(lambda: self.sync.start_redrive(**options)))


class AsyncRedriveTask:
    """A running redrive; made by `AsyncQueue.start_redrive`."""

    def __init__(self, sync: penstock.RedriveTask) -> None:
        self.sync = sync

    @property
    def status(self) -> str:
        """As `RedriveTask.status`."""
        return self.sync.status

    @property
    def report(self) -> penstock.RedriveReport:
        """What was done so far."""
        return self.sync.report

    def cancel(self) -> None:
        """As `RedriveTask.cancel`."""
        self.sync.cancel()

    async def result(self) -> penstock.RedriveReport:
        """Wait for the end; what was done. Raises what failed. Cancelled, it cancels the redrive."""
        try:
            return await asyncio.to_thread(self.sync.result)
        except asyncio.CancelledError:
            self.sync.cancel()
            raise


class AsyncExchange:
    """Made by `AsyncBroker.exchange`."""

    def __init__(self, broker: QueueMethods, sync: penstock.Exchange) -> None:
        self._broker = broker
        self.sync = sync

    async def publish(self, value: Any, routing_key: str = "", **options: Any) -> list[str]:
        """As `Exchange.publish`."""
        if self._broker.sync.fsync == "always":
            return await asyncio.to_thread(lambda: self.sync.publish(value, routing_key, **options))
        return self.sync.publish(value, routing_key, **options)

    async def bind(self, target: Any, routing_key: str = "", arguments: Any = None) -> None:
        """As `Exchange.bind`; takes the asyncio handles as well."""
        await asyncio.to_thread(self.sync.bind, getattr(target, "sync", target), routing_key, arguments)

    async def unbind(self, target: Any, routing_key: str = "", arguments: Any = None) -> bool:
        """As `Exchange.unbind`."""
        return await asyncio.to_thread(self.sync.unbind, getattr(target, "sync", target), routing_key, arguments)

    async def publish_many(self, messages: Iterable[tuple[Any, str]], mandatory: bool = False) -> int:
        """As `Exchange.publish_many`."""
        return await asyncio.to_thread(self.sync.publish_many, messages, mandatory)

    async def bindings(self) -> list[penstock.Binding]:
        """As `Exchange.bindings`."""
        return await asyncio.to_thread(self.sync.bindings)

    async def routes(self, routing_key: str = "", headers: Any = None) -> list[tuple[str, str]]:
        """As `Exchange.routes`."""
        return await asyncio.to_thread(self.sync.routes, routing_key, headers)

    async def delete(self) -> None:
        """As `Exchange.delete`."""
        await asyncio.to_thread(self.sync.delete)
