"""The worker loop for asyncio: a coroutine function awaited for every message, in tasks, with a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import penstock
from penstock.errors import ClosedError, InvalidConfigError, StaleReceiptError
from penstock.queues.worker import WaitingGroups

if TYPE_CHECKING:
    from penstock.aio.queue import AsyncShareGroup

_RECEIVE_S = 1.0


class AsyncWorker:
    """Awaits `handler(message)` for every message: returned, it is acknowledged; raised, it is given back with the
    retry policy's delay, and in the end dead-lettered, as `penstock.Worker` does.

    `tasks`: handlers at once. `prefetch`: messages a task receives at a time. `retry`, `visibility_timeout`,
    `exclusive`, `consumer_priority`: as for `Worker`. While a handler runs, the time-outs of what its task holds are
    extended. `stop` finishes the messages in hand and gives what was prefetched back, which is no failure. Cancelled,
    it cancels the handlers and gives everything back at once. Raises `InvalidConfigError`, and what `Worker` raises.
    """

    def __init__(
        self,
        group: AsyncShareGroup,
        handler: Callable[[penstock.Message], Awaitable[Any]],
        tasks: int = 1,
        prefetch: int = 1,
        retry: penstock.RetryPolicy | None = None,
        visibility_timeout: float | None = None,
        exclusive: bool = False,
        consumer_priority: int = 0,
    ) -> None:
        if type(tasks) is not int or tasks < 1:
            raise InvalidConfigError(f"tasks is {tasks!r}; allowed is an int from 1")
        self._group = group
        self._handler = handler
        self._tasks, self._prefetch = tasks, prefetch
        self._visibility = visibility_timeout
        self._exclusive, self._priority = exclusive, consumer_priority
        self._settler = penstock.Worker(  # checks the arguments, and knows what becomes of a message
            group.sync, handler, 1, 0, prefetch, retry, visibility_timeout, exclusive, consumer_priority
        )
        self._stopping = False
        self._receiving: set[asyncio.Task[list[penstock.Message]]] = set()
        self._running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Work until stopped or cancelled."""
        sync = self._group.sync
        with sync._presence(self._exclusive):
            async with asyncio.TaskGroup() as group:
                for _ in range(self._tasks):
                    group.create_task(self._work())
        sync._left()

    def start(self) -> AsyncWorker:
        """Work in the background; `stop` and `join` end it. In a running loop."""
        self._running = asyncio.get_running_loop().create_task(self.run())
        return self

    def stop(self) -> None:
        """Finish what is in hand, give the rest back, and end. Returns at once."""
        self._stopping = True
        for task in self._receiving:
            task.cancel()

    async def join(self) -> None:
        """Wait for the end of what `start` began; raises what it raised."""
        if self._running is not None:
            await self._running

    # --- one task --------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while not self._stopping:
            held = await self._receive()
            keeper = asyncio.create_task(self._keep(held))
            waiting = WaitingGroups(self._group.sync)
            try:
                while held:
                    if self._stopping:
                        break
                    if held[0] in waiting:
                        self._settler._give_back(held[0])
                    elif not await self._handle(held[0]):
                        waiting.add(held[0])
                    del held[0]
            finally:
                keeper.cancel()
                for message in held:
                    if not message.settled:
                        self._settler._give_back(message)

    async def _receive(self) -> list[penstock.Message]:
        """What there is; nothing when `stop` interrupts the waiting (a cancelled `receive` has acquired nothing)."""
        waiting = asyncio.create_task(self._group.receive(self._prefetch, _RECEIVE_S, self._visibility, self._priority))
        self._receiving.add(waiting)
        try:
            await asyncio.wait({waiting})
        finally:
            self._receiving.discard(waiting)
            waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError, ClosedError):
            return waiting.result()
        self._stopping = True
        return []

    async def _handle(self, message: penstock.Message) -> bool:
        """Whether it is dealt with; if not, it comes again."""
        try:
            await self._handler(message)
        except Exception as error:
            return self._settler._failed(message, error)
        if not message.settled:
            self._settler._settle(message.ack)
        return True

    async def _keep(self, held: list[penstock.Message]) -> None:
        visibility = self._group.sync._config.visibility_timeout if self._visibility is None else self._visibility
        while True:
            await asyncio.sleep(visibility / 3)
            for message in [one for one in held if not one.settled]:
                with contextlib.suppress(StaleReceiptError):  # it was settled meanwhile, or is somebody else's
                    message.extend(visibility)
