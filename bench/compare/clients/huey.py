"""huey: the SQLite storage under its task queue, one message a call; taking removes, there is no acknowledging."""

from __future__ import annotations

import importlib
from typing import Any

from bench.compare.clients.base import Client
from bench.compare.values import Load


class Huey(Client):
    """`SqliteStorage.enqueue` and `dequeue`."""

    requires = ("huey",)

    def __init__(self, place: Any, **options: Any) -> None:
        super().__init__(place, **options)
        self._open: dict[str, Any] = {}

    def storage(self, name: str) -> Any:
        """Opened once a process."""
        if name not in self._open:
            module: Any = importlib.import_module("huey.storage")
            self._open[name] = module.SqliteStorage(name, filename=f"{self.place['directory']}/{name}.sqlite3")
        return self._open[name]

    def write_each(self, topic: str, load: Load) -> None:
        enqueue = self.storage(topic).enqueue
        for values, _ in load.blocks():
            for value in values:
                enqueue(value)

    def fill(self, queue: str, load: Load) -> None:
        self.write_each(queue, load)

    def take(self, queue: str, count: int) -> None:
        dequeue = self.storage(queue).dequeue
        for _ in range(count):
            assert dequeue() is not None

    def first(self, topic: str) -> None:
        self.storage(topic).enqueue(b"first")
        assert bytes(self.storage(topic).dequeue()) == b"first"
