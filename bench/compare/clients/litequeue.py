"""litequeue: a queue of strings in one SQLite file, one message a call."""

from __future__ import annotations

import importlib
from typing import Any

from bench.compare.clients.base import Client
from bench.compare.values import Load


class Litequeue(Client):
    """`put`, `pop`, `done`; values as text, which it stores."""

    requires = ("litequeue",)

    def __init__(self, place: Any, **options: Any) -> None:
        super().__init__(place, **options)
        self._open: dict[str, Any] = {}

    def queue(self, name: str) -> Any:
        """Opened once a process."""
        if name not in self._open:
            module: Any = importlib.import_module("litequeue")
            self._open[name] = module.LiteQueue(f"{self.place['directory']}/{name}.sqlite3")
        return self._open[name]

    def write_each(self, topic: str, load: Load) -> None:
        put = self.queue(topic).put
        for values, _ in load.blocks():
            for value in values:
                put(value.decode())

    def fill(self, queue: str, load: Load) -> None:
        self.write_each(queue, load)

    def take(self, queue: str, count: int) -> None:
        opened = self.queue(queue)
        for _ in range(count):
            opened.done(opened.pop().message_id)

    def first(self, topic: str) -> None:
        opened = self.queue(topic)
        opened.put("first")
        assert opened.pop().data == "first"
