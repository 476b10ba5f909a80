"""Being asked to stop, from any thread or signal handler.

A signal handler runs between two steps of the thread that it interrupts, which may hold a lock just then: what it calls
must not wait for one. `threading.Event` does.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


class StopFlag:
    """As `threading.Event`, and a signal handler may set it whatever the thread that it interrupts does with it."""

    __slots__ = ("_is_set", "_tokens")

    def __init__(self) -> None:
        self._is_set = False
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()  # its `put` may interrupt its `get`

    def is_set(self) -> bool:
        """Whether somebody asked."""
        return self._is_set

    def set(self) -> None:
        """Ask."""
        self._is_set = True
        self._tokens.put(None)

    def clear(self) -> None:
        """Forget that somebody asked; while nobody waits."""
        self._is_set = False
        self._tokens = queue.SimpleQueue()

    def wait(self, timeout: float) -> bool:
        """Whether somebody asked, or does so within so many seconds."""
        if not self._is_set:
            with contextlib.suppress(queue.Empty):
                self._tokens.get(timeout=timeout)
                self._tokens.put(None)  # for whoever else waits
        return self._is_set


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[StopFlag]:
    """While the block runs in the main thread, SIGTERM and SIGINT call `stop`; in another thread nothing is changed.

    A second one does what it did before the block, and so ends what does not listen. The flag tells whether one came:
    of what the block begins, a part may begin behind the signal.
    """
    came = StopFlag()
    before: dict[signal.Signals, Any] = {}

    def handle(*_: object) -> None:
        give_back()
        came.set()
        stop()

    def give_back() -> None:
        for number, action in before.items():
            signal.signal(number, signal.SIG_DFL if action is None else action)  # None: not Python's

    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, handle)
        yield came
    finally:
        give_back()
