"""The broker's background thread: syncing on an interval, and maintenance where this process was elected."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING

from penstock.errors import ClosedError, PenstockError

if TYPE_CHECKING:
    from penstock.streams.broker import Broker

_log = logging.getLogger("penstock.broker")


class Background:
    """Runs until `stop`. A failure is logged and tried again; a sync that still fails is raised by `Broker.close`."""

    def __init__(self, broker: Broker) -> None:
        self._stopped = threading.Event()
        _, sync_ms, maintenance_ms = broker._settings
        self._tick_s = (min(sync_ms, maintenance_ms) if broker.fsync == "interval" else maintenance_ms) / 1000
        self._sync = broker.fsync == "interval"
        self._maintenance_s = maintenance_ms / 1000
        self._thread = threading.Thread(
            target=self._run, args=(weakref.ref(broker),), name="penstock-background", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, reference: weakref.ref[Broker]) -> None:
        waited = 0.0
        while not self._stopped.wait(self._tick_s):
            waited += self._tick_s
            broker = reference()
            if broker is None:
                return
            if self._sync:
                self._attempt(broker.sync, "sync")
            if waited >= self._maintenance_s:
                waited = 0.0
                self._attempt(broker.maintain, "maintenance")
            del broker

    def _attempt(self, action: object, name: str) -> None:
        assert callable(action)
        try:
            action()
        except ClosedError:
            return
        except (PenstockError, OSError):
            _log.exception("%s failed and will be tried again", name)
