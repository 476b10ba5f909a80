"""Rebuilding a projection from its first event beside the live one, which stays readable and goes on until the swap.

SQLite: the events are applied to a database file of their own, next to the live one (in memory where that is in
memory); then, in one transaction of the live database, the projection's tables are replaced by the new ones, and the
checkpoint is moved. Readers see the old rows or the new ones. A death before that commit leaves the live one as it was.
Memory: a new mapping (or projection) is filled and takes the place of the old one's contents. Other databases: one
transaction empties the tables (`Projection.reset`) and fills them; others read the old rows until it commits.
"""

from __future__ import annotations

import copy
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.events.projection import Projection
from penstock.events.projector_feed import Feed, Position
from penstock.events.projector_target import MemoryTarget, SqlTarget

Filler = Callable[[Projection, Any, Position], Position]
"""(projection, database, after) -> the position up to which the database has everything now."""


def rebuild_sqlite(target: SqlTarget, projection: Projection, feed: Feed, fill: Filler) -> Position:
    """Rebuild in SQLite; the position of the new state."""
    (file,) = [str(row[2]) for row in target.sql.all("PRAGMA database_list") if row[1] == "main"]
    beside = f"{file}.rebuild-{os.getpid()}" if file else ":memory:"
    fresh = sqlite3.connect(beside, isolation_level=None, check_same_thread=False)
    try:
        fresh.execute("PRAGMA journal_mode=OFF")  # it is thrown away when anything fails
        fresh.execute("PRAGMA synchronous=OFF")
        fresh.execute("BEGIN")
        projection.setup(fresh)
        position = fill(projection, fresh, feed.start)
        with target.lock, target.sql.transaction(nested=False):
            position = fill(projection, fresh, position)  # the live one waits, and is overtaken
            fresh.execute("COMMIT")
            _replace_tables(target.db, fresh)
            target.put(feed.to_text(position))
        return position
    finally:
        fresh.close()
        if file:
            Path(beside).unlink(missing_ok=True)


def _replace_tables(live: sqlite3.Connection, fresh: sqlite3.Connection) -> None:
    kept = "name NOT LIKE 'sqlite_%' AND name NOT LIKE 'penstock_%' AND sql IS NOT NULL"
    made = fresh.execute(f"SELECT type, name, sql FROM sqlite_master WHERE {kept} ORDER BY type <> 'table'").fetchall()
    for kind, name, _ in reversed(made):
        live.execute(f'DROP {kind.upper()} IF EXISTS "{name}"')
    for kind, name, statement in made:
        if kind == "table":
            live.execute(statement)
            columns = [row[1] for row in fresh.execute(f'PRAGMA table_info("{name}")')]
            quoted = ", ".join(f'"{column}"' for column in columns)
            marks = ", ".join("?" * len(columns))
            rows = fresh.execute(f'SELECT {quoted} FROM "{name}"')
            live.executemany(f'INSERT INTO "{name}" ({quoted}) VALUES ({marks})', rows)
    for kind, _, statement in made:
        if kind != "table":
            live.execute(statement)


def rebuild_memory(target: MemoryTarget, projection: Projection, feed: Feed, fill: Filler) -> Position:
    """Rebuild in memory; the position of the new state."""
    if target.db is projection:
        fresh: Any = type(projection)()
        fresh.setup(fresh)
        position = fill(fresh, fresh, feed.start)
        with target.lock:
            position = fill(fresh, fresh, position)
            vars(projection).clear()
            vars(projection).update(vars(fresh))
            target.position = feed.to_text(position)
        return position
    fresh = copy.copy(target.db)
    fresh.clear()
    projection.setup(fresh)
    position = fill(projection, fresh, feed.start)
    with target.lock:
        position = fill(projection, fresh, position)
        target.db.clear()
        target.db.update(fresh)
        target.position = feed.to_text(position)
    return position


def rebuild_in_place(target: SqlTarget, projection: Projection, feed: Feed, fill: Filler) -> Position:
    """Rebuild in another database, by one transaction; the position of the new state."""
    with target.lock, target.sql.transaction(nested=False):
        target.sql.run("UPDATE penstock_checkpoints SET position = position")  # holds the live one off
        projection.reset(target.db)
        position = fill(projection, target.db, feed.start)
        target.put(feed.to_text(position))
    return position
