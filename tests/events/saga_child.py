"""A process that runs sagas of five steps whose effects are rows of a database, unique by key; it may die at a point.

`python saga_child.py DIRECTORY DATABASE [POINT]`: POINT counts the places passed at which it would die; `run` for ever
without.
"""

from __future__ import annotations

import os
import sqlite3
import sys

import penstock
from penstock import events
from penstock.events.sagas import partition

STEPS = 5


class DeathAt:
    """Ends the process at the n-th place that is passed."""

    def __init__(self, point: int) -> None:
        self.left = point

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(77)


def define(sagas: events.Sagas, database: str, die) -> None:
    """`ok`: five steps and a signal. `fails`: four steps, the fifth is refused, four compensations."""
    connection = sqlite3.connect(database, timeout=60, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS effects (key TEXT PRIMARY KEY, what TEXT NOT NULL)")
    connection.execute("CREATE TABLE IF NOT EXISTS calls (key TEXT NOT NULL, attempt INTEGER NOT NULL)")

    def effect(what: str) -> str:
        info = events.current_step()
        assert info is not None
        die()
        connection.execute("INSERT INTO calls VALUES (?, ?)", (info.key, info.attempt))
        connection.execute("INSERT OR IGNORE INTO effects VALUES (?, ?)", (info.key, what))
        die()
        return what

    def refuse(what: str) -> None:
        die()
        raise ValueError(what)

    @sagas.define("ok")
    def ok(saga, number):
        done = [saga.step(effect, f"step {n}") for n in range(STEPS)]
        return [done, saga.wait_for("go")]

    @sagas.define("fails")
    def fails(saga, number):
        for n in range(STEPS - 1):
            saga.step(effect, f"step {n}", compensate=effect)
        saga.step(refuse, "declined")


def main() -> None:
    path, database = sys.argv[1], sys.argv[2]
    die = DeathAt(int(sys.argv[3]) if len(sys.argv) > 3 else -1)
    journal = partition.OwnedPartition.journal

    def dying(self, task, entry) -> None:
        die()
        journal(self, task, entry)
        die()

    partition.OwnedPartition.journal = dying
    with penstock.open(path) as broker, events.Sagas(broker, partitions=4) as sagas:
        define(sagas, database, die)
        print("ready", flush=True)
        if die.left > 0:
            sagas.run_until_idle()
        else:
            sagas.run(workers=2)


if __name__ == "__main__":
    main()
