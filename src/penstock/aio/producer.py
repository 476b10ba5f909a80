"""The producer for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import penstock

if TYPE_CHECKING:
    from penstock.aio.broker import AsyncBroker
    from penstock.aio.consumer import AsyncConsumer

_P = ParamSpec("_P")
_R = TypeVar("_R")


class AsyncProducer:
    """Made by `AsyncBroker.producer`.

    Storing is a copy into memory, done by the loop's thread; by a worker thread with `fsync="always"`, where it waits
    for the disk.
    """

    def __init__(self, broker: AsyncBroker, sync: penstock.Producer) -> None:
        self._blocking = broker.sync.fsync == "always"
        self.sync = sync

    async def _call(self, action: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if not self._blocking:
            return action(*args, **kwargs)
        task = asyncio.ensure_future(asyncio.to_thread(action, *args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():  # the thread cannot be stopped: whoever cancelled finds it at rest
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            raise

    async def send(self, topic: str, value: Any, **options: Any) -> None:
        """Buffer one record; arguments and errors as `Producer.send`."""
        await self._call(self.sync.send, topic, value, **options)

    async def send_and_wait(self, topic: str, value: Any, **options: Any) -> penstock.RecordMetadata:
        """Send one record, and return where it is once it is stored (after at most `linger_ms`)."""
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[penstock.RecordMetadata] = loop.create_future()

        def settle(error: Exception | None, metadata: penstock.RecordMetadata | None) -> None:
            if stored.done():
                return
            if error is not None:
                stored.set_exception(error)
            elif metadata is not None:
                stored.set_result(metadata)

        def delivered(error: Exception | None, metadata: penstock.RecordMetadata | None) -> None:
            loop.call_soon_threadsafe(settle, error, metadata)

        await self.send(topic, value, on_delivery=delivered, **options)
        return await stored

    async def send_many(self, topic: str, values: Iterable[bytes], **options: Any) -> int:
        """Buffer many records; as `Producer.send_many`."""
        return await self._call(self.sync.send_many, topic, values, **options)

    async def flush(self) -> None:
        """As `Producer.flush`."""
        await self._call(self.sync.flush)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncProducer]:
        """As `Producer.transaction`: commits on leaving, aborts when an exception (or a cancellation) leaves."""
        self.sync.begin_transaction()
        try:
            yield self
        except BaseException:
            await self._call(self.sync.abort_transaction)
            raise
        try:
            await self._call(self.sync.commit_transaction)
        except Exception:
            await self._call(self.sync.abort_transaction)
            raise

    def send_offsets(self, consumer: AsyncConsumer) -> None:
        """As `Producer.send_offsets`."""
        self.sync.send_offsets(consumer.sync)

    async def close(self) -> None:
        """As `Producer.close`."""
        await self._call(self.sync.close)

    async def __aenter__(self) -> AsyncProducer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
