"""The producer's linger thread: stores batches that were begun `linger_ms` ago and are still not full."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.streams.producer import Producer

_VIRTUAL_TICK_S = 0.002


class Linger:
    """Sleeps while nothing is buffered. Started by the first buffered record; ends with its producer."""

    def __init__(self, producer: Producer) -> None:
        self._event = threading.Event()
        self._pause = threading.Event()  # set to cut a pause short
        self._stopped = False
        self._thread = threading.Thread(
            target=self._run, args=(weakref.ref(producer, self._gone),), name="penstock-linger", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Something is buffered."""
        self._event.set()

    def stop(self) -> None:
        """End the thread and wait for it (not when called by it)."""
        self._stopped = True
        self._event.set()
        self._pause.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _gone(self, _: object) -> None:
        self._stopped = True
        self._event.set()
        self._pause.set()

    def _run(self, reference: weakref.ref[Producer]) -> None:
        pause = self._pause
        while not self._stopped:
            self._event.wait()
            producer = reference()
            if self._stopped or producer is None:
                return
            tick = producer.linger_s if producer.uses_system_clock else _VIRTUAL_TICK_S
            if producer.store_lingering():
                self._event.clear()
                producer.linger_done()
            del producer
            pause.wait(tick)
