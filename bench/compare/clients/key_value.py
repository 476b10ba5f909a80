"""What the clients of key-value stores have in common: each topic's store is opened once a process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from bench.compare.clients.base import Client


class KeyValueClient(Client, ABC):
    """A directory a topic."""

    def __init__(self, place: Any, **options: Any) -> None:
        super().__init__(place, **options)
        self._stores: dict[str, Any] = {}

    @abstractmethod
    def open(self, path: str) -> Any:
        """The store in a directory, made when there is none."""

    def store(self, topic: str) -> Any:
        """The store of a topic."""
        if topic not in self._stores:
            self._stores[topic] = self.open(f"{self.place['directory']}/{topic}")
        return self._stores[topic]

    def close(self) -> None:
        for store in self._stores.values():
            store.close()
