"""The event loop in which a bus runs its async handlers: in a thread of its own, or the loop of `EventBus.serve`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from penstock.errors import InvalidConfigError
from penstock.events.loop_thread import LoopThread

T = TypeVar("T")
_abandoned: list[LoopThread] = []


class HandlerLoop:
    """Runs coroutines for worker threads. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: asyncio.AbstractEventLoop | None = None
        self._own: LoopThread | None = None

    def use(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Run them in this loop from now on; None: in one of its own."""
        self.stop()
        self._given = loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, waited for by this thread. Raises `InvalidConfigError` in the loop itself."""
        if self.is_current:
            coroutine.close()
            raise InvalidConfigError("an async handler waits for the loop that runs it; do this in a thread")
        return asyncio.run_coroutine_threadsafe(coroutine, self._running()).result()

    @property
    def is_current(self) -> bool:
        """Whether this is called by what the loop runs."""
        own, given = self._own, self._given
        if own is not None:
            return own.is_current
        return given is not None and asyncio._get_running_loop() is given

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._given is not None:
                return self._given
            if self._own is None:
                self._own = LoopThread("penstock-bus-loop")
            return self._own.loop

    def leave_parent(self) -> None:
        """In the child of a fork: the loop's thread stayed with the parent, and its descriptors are shared."""
        if self._own is not None:
            _abandoned.append(self._own)
        self._lock, self._given, self._own = threading.Lock(), None, None

    def stop(self, wait: bool = True) -> None:
        """End the loop, if it is its own; `wait` until it has."""
        with self._lock:
            own, self._own, self._given = self._own, None, None
        if own is not None:
            own.end(wait)
