"""Rebuilding a projection from its first event beside the live one, which stays readable and goes on until the swap.

SQLite: the events are applied to a database file of their own, next to the live one (in memory where that is in
memory; see `projector_scratch`). Then one transaction of the live database puts the tables that the projection's
`setup` makes, and those that its methods write to, in the place of the old ones, and moves the checkpoint. Other tables
stay. Readers see the old rows or the new ones. A death before that commit leaves the live one as it was.
Memory: a new mapping (or projection) is filled and takes the place of the old one's contents. Other databases: one
transaction empties the tables (`Projection.reset`) and fills them; others read the old rows until it commits.
"""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from penstock.events.projection import Projection
from penstock.events.projector_feed import Feed, Position
from penstock.events.projector_scratch import Learned, LearnedError, Scratch, copy_table, quoted
from penstock.events.projector_target import MemoryTarget, SqlTarget


class Filler(Protocol):
    """Applies what there is now behind a position to a database; the position up to which that has everything."""

    def __call__(
        self, projection: Projection, database: Any, after: Position, check: Callable[[], None] = ...
    ) -> Position:
        """`check` is called after each batch."""
        ...


def rebuild_sqlite(target: SqlTarget, projection: Projection, feed: Feed, fill: Filler) -> Position:
    """Rebuild in SQLite; the position of the new state."""
    learned = Learned()
    while True:
        before = copy.deepcopy(learned)
        with target.lock, target.sql.typed(), target.sql.transaction(nested=False):
            scratch = Scratch(target.db, projection, learned)
        try:
            with target.sql.typed():
                return _fill_and_swap(target, projection, feed, fill, scratch)
        except LearnedError:
            pass
        except Exception:
            if learned == before:
                raise  # else it may have been for want of what was learned
        finally:
            scratch.close()


def _fill_and_swap(target: SqlTarget, projection: Projection, feed: Feed, fill: Filler, scratch: Scratch) -> Position:
    scratch.set_up(projection)
    position = fill(projection, scratch.db, feed.start, scratch.check)
    position = fill(projection, scratch.db, position, scratch.check)  # what came meanwhile
    with target.lock, _unconstrained(target), target.sql.transaction(nested=False):
        position = fill(projection, scratch.db, position, scratch.check)  # the live one waits, and is overtaken
        _replace(target.db, scratch)
        target.put(feed.to_text(position))
    return position


@contextmanager
def _unconstrained(target: SqlTarget) -> Iterator[None]:
    """Dropping a table deletes what refers to its rows, unless foreign keys are off."""
    ((enforced,),) = target.sql.all("PRAGMA foreign_keys")
    if enforced:
        target.sql.run("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        if enforced:
            target.sql.run("PRAGMA foreign_keys=ON")


def _replace(live: sqlite3.Connection, scratch: Scratch) -> None:
    """Put the projection's tables, their indexes and triggers, and its views in the place of what is live."""
    made = scratch.replaced()
    for entry in made:
        if entry.kind in ("table", "view"):
            live.execute(f"DROP {entry.kind.upper()} IF EXISTS {quoted(entry.name)}")
    for entry in made:
        if entry.kind == "table":
            live.execute(entry.statement)
            copy_table(scratch.db, live, entry)
    for entry in made:
        if entry.kind != "table":
            live.execute(entry.statement)
    if any("AUTOINCREMENT" in entry.statement.upper() for entry in made):
        for name, number in scratch.db.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
            if any(entry.name == name for entry in made):
                live.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (number, name))


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
