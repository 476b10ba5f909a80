"""The broker for asyncio."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import penstock
from penstock.aio.consumer import AsyncConsumer
from penstock.aio.producer import AsyncProducer
from penstock.aio.queue_methods import QueueMethods
from penstock.aio.wake import Waker


class AsyncBroker(QueueMethods):
    """An open data directory, used by any number of loops. Everything that is not awaited is on `sync`, the broker."""

    def __init__(self, sync: penstock.Broker) -> None:
        self.sync = sync
        self._wakers: dict[asyncio.AbstractEventLoop, Waker] = {}

    def waker(self) -> Waker:
        """The waker of the running loop."""
        loop = asyncio.get_running_loop()
        waker = self._wakers.get(loop)
        if waker is None:
            self._wakers = {known: one for known, one in self._wakers.items() if not known.is_closed()}
            waker = self._wakers[loop] = Waker(self.sync._bell, loop)
        return waker

    async def create_topic(self, name: str, partitions: int = 1, **config: Any) -> penstock.Topic:
        """As `Broker.create_topic`."""
        return await asyncio.to_thread(self.sync.create_topic, name, partitions, **config)

    async def delete_topic(self, name: str) -> None:
        """As `Broker.delete_topic`."""
        await asyncio.to_thread(self.sync.delete_topic, name)

    def topics(self) -> list[str]:
        """As `Broker.topics`."""
        return self.sync.topics()

    def topic(self, name: str) -> penstock.Topic:
        """As `Broker.topic`."""
        return self.sync.topic(name)

    def producer(self, **options: Any) -> AsyncProducer:
        """A producer; options as `Broker.producer`. Use it with `async with`."""
        return AsyncProducer(self, self.sync.producer(**options))

    def consumer(self, *topics: str, **options: Any) -> AsyncConsumer:
        """A consumer; options as `Broker.consumer`. Use it with `async with`, and iterate it with `async for`."""
        return AsyncConsumer(self, self.sync.consumer(*topics, **options))

    async def close(self) -> None:
        """As `Broker.close`."""
        for waker in self._wakers.values():
            waker.stop()
        await asyncio.to_thread(self.sync.close)

    async def __aenter__(self) -> AsyncBroker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def open(path: str | os.PathLike[str] = "penstock-data", fsync: str = "interval", **options: Any) -> AsyncBroker:
    """Open (or create) a data directory; arguments and errors as `penstock.open`."""
    return AsyncBroker(penstock.open(path, fsync, **options))
