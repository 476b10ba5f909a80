"""Two processes and one mapped word, without a log: how late a message is on this machine whatever carries it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.compare.clients.base import Client
from bench.compare.workloads.latency import SIZE

SLOTS = 1 << 15
HEAD = 128  # the word, and then the slots


class Floor(Client):
    """The word counts the messages; each has a slot. Both sides spin."""

    paced_by_sleep = False

    def _open(self, topic: str) -> memoryview:
        path = Path(self.place["directory"], topic)
        if not path.exists():
            path.write_bytes(bytes(HEAD + SLOTS * SIZE))
        with open(path, "r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), 0))

    def create(self, topic: str, partitions: int = 1, lz4: bool = False) -> None:
        self._open(topic)

    def send_paced(self, topic: str, schedule: Any) -> None:
        mapped = self._open(topic)
        word = mapped[:8].cast("q")
        for number, message in enumerate(schedule):
            at = HEAD + number % SLOTS * SIZE
            mapped[at : at + SIZE] = message
            word[0] = number + 1

    def receive(self, topic: str) -> Iterator[list[bytes]]:
        mapped = self._open(topic)
        word, seen = mapped[:8].cast("q"), 0
        yield []
        while True:
            while (count := word[0]) == seen:
                pass
            places = [HEAD + number % SLOTS * SIZE for number in range(seen, count)]
            yield [bytes(mapped[at : at + SIZE]) for at in places]
            seen = count
