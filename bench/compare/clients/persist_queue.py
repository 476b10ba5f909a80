"""persist-queue: its acknowledging SQLite queue, one message a call."""

from __future__ import annotations

import importlib
from typing import Any

from bench.compare.clients.base import Client
from bench.compare.values import Load


class PersistQueue(Client):
    """`SQLiteAckQueue` with auto-commit: `put`, `get`, `ack`; values pickled, its default."""

    requires = ("persistqueue",)

    def __init__(self, place: Any, **options: Any) -> None:
        super().__init__(place, **options)
        self._open: dict[str, Any] = {}

    def queue(self, name: str) -> Any:
        """Opened once a process."""
        if name not in self._open:
            module: Any = importlib.import_module("persistqueue")
            self._open[name] = module.SQLiteAckQueue(f"{self.place['directory']}/{name}", auto_commit=True)
        return self._open[name]

    def write_each(self, topic: str, load: Load) -> None:
        put = self.queue(topic).put
        for values, _ in load.blocks():
            for value in values:
                put(value)

    def fill(self, queue: str, load: Load) -> None:
        self.write_each(queue, load)

    def take(self, queue: str, count: int) -> None:
        opened = self.queue(queue)
        for _ in range(count):
            opened.ack(opened.get(block=False))

    def first(self, topic: str) -> None:
        opened = self.queue(topic)
        opened.put(b"first")
        assert opened.get(block=False) == b"first"
