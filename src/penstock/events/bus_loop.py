"""The event loop in which a bus runs its async handlers: a thread of its own, or the loop of `EventBus.serve`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_abandoned: list[asyncio.AbstractEventLoop] = []


class HandlerLoop:
    """Runs coroutines for worker threads. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def use(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Run them in this loop from now on; None: in one of its own."""
        self.stop()
        self._loop = loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, waited for by this thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running()).result()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="penstock-bus-loop", daemon=True)
                self._thread.start()
            return self._loop

    def leave_parent(self) -> None:
        """In the child of a fork: the loop's thread stayed with the parent, and its descriptors are shared."""
        if self._loop is not None:
            _abandoned.append(self._loop)
        self._lock, self._loop, self._thread = threading.Lock(), None, None

    def stop(self) -> None:
        """End the loop, if it is its own."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
