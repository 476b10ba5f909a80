"""Queues, share groups and exchanges for asyncio.

Invariant: no await lies between acquiring messages and returning them, so that a cancelled `receive` has acquired
none. What waits for the disk (`fsync="always"`) runs in a thread; everything else is as fast as a call and runs in
the loop's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import penstock
from penstock.aio.wake import SLICE_S
from penstock.errors import InvalidConfigError, StaleReceiptError

if TYPE_CHECKING:
    from penstock.aio.broker import AsyncBroker

_T = TypeVar("_T")


class AsyncShareGroup:
    """Made by `AsyncBroker.share_consumer`. Any number of tasks may use it."""

    def __init__(self, broker: AsyncBroker, sync: penstock.ShareGroup) -> None:
        self._broker = broker
        self.sync = sync

    async def receive(
        self, max_messages: int = 10, wait: float | None = 20.0, visibility_timeout: float | None = None
    ) -> list[penstock.Message]:
        """As `Queue.receive`. Cancelling it leaves every message where it was."""
        clock = self._broker.sync.clock
        deadline = math.inf if wait is None else clock.monotonic() + wait
        while True:
            seen = self.sync._bell.arm()
            found = self.sync.receive(max_messages, 0, visibility_timeout)
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

    async def consume(
        self,
        handler: Callable[[penstock.Message], Awaitable[Any]],
        tasks: int = 1,
        retry: penstock.RetryPolicy | None = None,
    ) -> None:
        """Await `handler(message)` for every message, in so many tasks, until cancelled; see `Worker` for what
        happens then.

        Cancelled, it cancels the handlers and gives their messages back at once, which is no failure.
        """
        if type(tasks) is not int or tasks < 1:
            raise InvalidConfigError(f"tasks is {tasks!r}; allowed is an int from 1")
        worker = penstock.Worker(self.sync, lambda message: None, retry=retry)
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(self._work(handler, worker))

    async def _work(self, handler: Callable[[penstock.Message], Awaitable[Any]], worker: penstock.Worker) -> None:
        while True:
            for message in await self.receive(1, wait=1.0):
                keeper = asyncio.create_task(self._keep(message))
                try:
                    await handler(message)
                except Exception as error:
                    worker._failed(message, error)
                except BaseException:
                    worker._give_back(message)
                    raise
                else:
                    if not message.settled:
                        worker._settle(message.ack)
                finally:
                    keeper.cancel()

    async def _keep(self, message: penstock.Message) -> None:
        visibility = self.sync._config.visibility_timeout
        while True:
            await asyncio.sleep(visibility / 3)
            try:
                message.extend(visibility)
            except StaleReceiptError:
                return

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

    async def stats(self) -> penstock.QueueStats:
        """As `Queue.stats`."""
        return self.sync.stats()

    async def peek(self, *arguments: Any, **options: Any) -> list[penstock.Message]:
        """As `Queue.peek`."""
        return await asyncio.to_thread(self.sync.peek, *arguments, **options)

    async def purge(self, state: str = "unsettled") -> int:
        """As `Queue.purge`."""
        return await asyncio.to_thread(self.sync.purge, state)

    async def redrive(self, **options: Any) -> penstock.RedriveReport:
        """As `Queue.redrive`."""
        return await asyncio.to_thread(lambda: self.sync.redrive(**options))


class AsyncExchange:
    """Made by `AsyncBroker.exchange`."""

    def __init__(self, broker: AsyncBroker, sync: penstock.Exchange) -> None:
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
