"""SQLite: a table by hand, and three queues made of it."""

from __future__ import annotations

import sqlite3

from bench.compare.model import CACHE, Side
from bench.compare.systems.base import Library, package_version

IN = "in process"


class Sqlite(Library):
    """One file a topic or queue."""

    name = package = "sqlite"
    sides = (
        Side(
            "sqlite",
            "SQLite by hand",
            "sqlite:Sqlite",
            "Python",
            IN,
            "WAL, synchronous=NORMAL, 64 MiB cache, mmap; executemany, transactions of 10,000; 1,000 taken at once",
            CACHE,
        ),
        Side(
            "litequeue",
            "litequeue",
            "litequeue:Litequeue",
            "Python",
            IN,
            "its defaults (WAL); values as text",
            CACHE,
            workloads=("one-by-one", "queue", "start"),
        ),
        Side(
            "persist-queue",
            "persist-queue",
            "persist_queue:PersistQueue",
            "Python",
            IN,
            "SQLiteAckQueue, auto_commit",
            CACHE,
            workloads=("one-by-one", "queue", "start"),
        ),
        Side(
            "huey",
            "huey's SQLite storage",
            "huey:Huey",
            "Python",
            IN,
            "its defaults; no acknowledging: what is taken is gone",
            CACHE,
            workloads=("one-by-one", "queue", "start"),
        ),
    )

    def version(self) -> str:
        """Of the library and the three packages."""
        packages = ", ".join(f"{name} {package_version(name)}" for name in ("litequeue", "persist-queue", "huey"))
        return f"SQLite {sqlite3.sqlite_version}, {packages}"
