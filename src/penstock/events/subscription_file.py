"""The settings of a store's persistent subscriptions, and why they parked what they parked, in an SQLite file.

Process and thread safety, crash policy: those of `SqliteFile`. Which events are parked is not here, but in the delivery
state of the subscription; a reason without a parked event means nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from penstock.events.sqlite_file import SqliteFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS subscriptions (
    name TEXT PRIMARY KEY, settings TEXT NOT NULL, made_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS parked (
    name TEXT NOT NULL, position INTEGER NOT NULL, reason TEXT NOT NULL, parked_ms INTEGER NOT NULL,
    PRIMARY KEY (name, position)
) STRICT, WITHOUT ROWID;
"""


class SubscriptionFile:
    """The settings of a store's persistent subscriptions, and the reasons of what they parked."""

    def __init__(self, path: Path) -> None:
        self.file = SqliteFile(path, _SCHEMA)

    def settings(self, name: str) -> dict[str, Any] | None:
        """What a subscription was made with; None: there is none."""
        if not self.file.exists:
            return None
        with self.file.reading() as connection:
            row = connection.execute("SELECT settings FROM subscriptions WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def make(self, name: str, settings: dict[str, Any], now_ms: int) -> dict[str, Any]:
        """Note a new subscription; its settings, which are another's if that one was faster."""
        with self.file.writing() as connection:
            row = (name, json.dumps(settings), now_ms)
            connection.execute("INSERT OR IGNORE INTO subscriptions VALUES (?, ?, ?)", row)
            found = connection.execute("SELECT settings FROM subscriptions WHERE name = ?", (name,)).fetchone()
        decoded: dict[str, Any] = json.loads(found[0])
        return decoded

    def names(self) -> list[str]:
        """The names of all."""
        if not self.file.exists:
            return []
        with self.file.reading() as connection:
            return [row[0] for row in connection.execute("SELECT name FROM subscriptions ORDER BY name")]

    def delete(self, name: str) -> None:
        """Forget a subscription."""
        with self.file.writing() as connection:
            connection.execute("DELETE FROM subscriptions WHERE name = ?", (name,))
            connection.execute("DELETE FROM parked WHERE name = ?", (name,))

    def park(self, name: str, position: int, reason: str, now_ms: int) -> None:
        """Note why an event was parked."""
        with self.file.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO parked VALUES (?, ?, ?, ?)", (name, position, reason, now_ms))

    def reason(self, name: str, position: int) -> tuple[str, int] | None:
        """Why, and when (ms), an event was parked."""
        statement = "SELECT reason, parked_ms FROM parked WHERE name = ? AND position = ?"
        with self.file.reading() as connection:
            row = connection.execute(statement, (name, position)).fetchone()
        return None if row is None else (row[0], row[1])

    def unpark(self, name: str, positions: Iterable[int]) -> None:
        """Events are not parked any more."""
        with self.file.writing() as connection:
            connection.executemany(
                "DELETE FROM parked WHERE name = ? AND position = ?", ((name, position) for position in positions)
            )
