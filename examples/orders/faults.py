"""What goes wrong: payments, duplicates, poison, and the death of processes. Chosen by hashes, so that runs agree."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from examples.orders.model import OrderPlaced

ROOT = Path(__file__).resolve().parents[2]
POISON = "poison-"


class Declined(Exception):
    """The bank said no, and will say so again."""


class BankAway(Exception):
    """The bank did not answer; it may when asked again."""


def declines(order_id: str, rate: float) -> bool:
    """Whether the customer's bank refuses this order."""
    return zlib.crc32(order_id.encode()) % 10_000 < rate * 10_000


def is_away(order_id: str, attempt: int) -> bool:
    """Whether the bank does not answer: the first attempt for one order in thirty."""
    return attempt == 1 and zlib.crc32(b"away" + order_id.encode()) % 30 == 0


def with_duplicates(orders: list[OrderPlaced], rate: float) -> list[OrderPlaced]:
    """The orders as a careless client sends them: some twice."""
    generator = random.Random(3)
    sent: list[OrderPlaced] = []
    for order in orders:
        sent.append(order)
        if generator.random() < rate:
            sent.append(order)
    return sent


def poison_order(number: int) -> OrderPlaced:
    """An order that every handler chokes on: nobody can reserve less than nothing."""
    return OrderPlaced(f"{POISON}{number}", "nobody", "sku-0", -1, -100)


@dataclass
class Workers:
    """Worker processes; now and then one is killed with SIGKILL, by its id, and replaced."""

    arguments: list[str]
    count: int
    kills: int
    every_s: float
    seed: int = 11
    killed: int = 0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _next: float = 0.0

    def start(self) -> None:
        """Start all."""
        self._generator = random.Random(self.seed)
        self.processes = [self._spawn() for _ in range(self.count)]
        self._next = time.monotonic() + self.every_s

    def _spawn(self) -> subprocess.Popen[bytes]:
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        return subprocess.Popen([sys.executable, "-m", "examples.orders", *self.arguments], env=environment)

    def look_after(self) -> None:
        """Kill one if it is time to; replace those that died."""
        if self.killed < self.kills and time.monotonic() >= self._next:
            victim = self.processes[self._generator.randrange(len(self.processes))]
            victim.kill()
            victim.wait()
            self.killed += 1
            self._next = time.monotonic() + self.every_s * self._generator.uniform(0.5, 1.5)
        for place, process in enumerate(self.processes):
            if process.poll() is not None:
                self.processes[place] = self._spawn()

    def stop(self) -> list[int]:
        """End them gracefully; their exit codes."""
        for process in self.processes:
            process.terminate()
        return [process.wait(30) for process in self.processes]
