"""Waiting for the broker's wake word without blocking a loop: one thread for all that wait in it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock._native.bell import Bell

SLICE_S = 1.0  # how long the thread may miss that nobody waits any more


class Waker:
    """Belongs to one loop. Its thread ends when nobody has waited for a second, and comes back when somebody does."""

    def __init__(self, bell: Bell, loop: asyncio.AbstractEventLoop) -> None:
        self._bell = bell
        self.loop = loop
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._thread: threading.Thread | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the thread; those who wait go on at their time-out."""
        with self._lock:
            self._stopped = True
            thread = self._thread
        if thread is not None:
            self._bell.ring()
            thread.join()

    async def wait(self, seen: int, timeout_s: float) -> None:
        """Return once the bell was rung after `seen = bell.arm()`, or after `timeout_s`."""
        future: asyncio.Future[None] = self.loop.create_future()
        with self._lock:
            self._waiting[future] = seen
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="penstock-aio", daemon=True)
                self._thread.start()
        try:
            await asyncio.wait({future}, timeout=timeout_s)
        finally:
            with self._lock:
                self._waiting.pop(future, None)
            future.cancel()

    def _run(self) -> None:
        while True:
            value = self._bell.arm()
            with self._lock:
                if self._stopped or not self._waiting:
                    self._thread = None
                    return
                due = [future for future, seen in self._waiting.items() if seen != value]
                for future in due:
                    del self._waiting[future]
            if due and not self._wake(due):
                return
            self._bell.wait(value, SLICE_S)

    def _wake(self, futures: list[asyncio.Future[None]]) -> bool:
        try:
            self.loop.call_soon_threadsafe(_finish, futures)
        except RuntimeError:  # the loop was closed
            with self._lock:
                self._waiting.clear()
                self._thread = None
            return False
        return True


def _finish(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
