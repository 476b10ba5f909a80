"""An event loop in a thread of its own, for coroutines that other threads wait for."""

from __future__ import annotations

import asyncio
import logging
import threading

_log = logging.getLogger("penstock.events")


class LoopThread:
    """Runs at once; `end` ends it."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            try:
                self.loop.run_forever()
            except BaseException as error:  # of a task, a SystemExit: whoever waits for that gets it, once this goes on
                _log.debug("the loop of %s was left by %r", self._thread.name, error)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    @property
    def is_current(self) -> bool:
        """Whether this is called in its thread, which nobody may wait for there."""
        return threading.current_thread() is self._thread

    def end(self, wait: bool = True) -> None:
        """End the loop; `wait` until it has."""
        self._ended = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        if wait:
            self._thread.join()
