"""What the broker for asyncio knows of queues, share groups, exchanges and schedules."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

import penstock
from penstock.aio.queue import AsyncExchange, AsyncQueue, AsyncShareGroup
from penstock.aio.wake import Waker


class QueueMethods(ABC):
    """A part of `AsyncBroker`."""

    sync: penstock.Broker

    @abstractmethod
    def waker(self) -> Waker:
        """The waker of the running loop."""

    async def queue(self, name: str, **options: Any) -> AsyncQueue:
        """A queue, made when it does not exist; options as `Broker.queue`."""
        return AsyncQueue(self, await asyncio.to_thread(lambda: self.sync.queue(name, **options)))

    async def queues(self) -> dict[str, penstock.QueueConfig]:
        """As `Broker.queues`."""
        return await asyncio.to_thread(self.sync.queues)

    async def delete_queue(self, name: str) -> None:
        """As `Broker.delete_queue`."""
        await asyncio.to_thread(self.sync.delete_queue, name)

    async def share_consumer(self, topic: str, group: str, **options: Any) -> AsyncShareGroup:
        """A consumer of a share group; options as `Broker.share_consumer`."""
        return AsyncShareGroup(self, await asyncio.to_thread(lambda: self.sync.share_consumer(topic, group, **options)))

    async def share_groups(self, topic: str) -> list[str]:
        """As `Broker.share_groups`."""
        return await asyncio.to_thread(self.sync.share_groups, topic)

    async def delete_share_group(self, topic: str, group: str) -> None:
        """As `Broker.delete_share_group`."""
        await asyncio.to_thread(self.sync.delete_share_group, topic, group)

    async def exchange(
        self, name: str, type: str | None = None, alternate: str | AsyncExchange | None = None
    ) -> AsyncExchange:
        """An exchange; as `Broker.exchange`."""
        other = alternate.sync if isinstance(alternate, AsyncExchange) else alternate
        return AsyncExchange(self, await asyncio.to_thread(self.sync.exchange, name, type, other))

    async def exchanges(self) -> dict[str, str]:
        """As `Broker.exchanges`."""
        return await asyncio.to_thread(self.sync.exchanges)

    async def delete_exchange(self, name: str) -> None:
        """As `Broker.delete_exchange`."""
        await asyncio.to_thread(self.sync.delete_exchange, name)

    async def schedule(
        self,
        name: str,
        target: AsyncQueue | AsyncExchange | penstock.Queue | penstock.Exchange,
        body: bytes,
        cron: str,
        routing_key: str = "",
        headers: Any = None,
    ) -> penstock.Schedule:
        """As `Broker.schedule`; takes the asyncio handles as well."""
        place = target.sync if isinstance(target, (AsyncQueue, AsyncExchange)) else target
        return await asyncio.to_thread(self.sync.schedule, name, place, body, cron, routing_key, headers)

    async def schedules(self) -> list[penstock.Schedule]:
        """As `Broker.schedules`."""
        return await asyncio.to_thread(self.sync.schedules)

    async def delete_schedule(self, name: str) -> None:
        """As `Broker.delete_schedule`."""
        await asyncio.to_thread(self.sync.delete_schedule, name)
