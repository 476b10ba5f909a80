"""Projections: what a read model makes of each event. `Projector` runs them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from penstock.errors import InvalidConfigError
from penstock.events.applies import AppliesMeta, applier_of
from penstock.events.bus_handler import positional_count
from penstock.events.event import Event

Apply = Callable[[Any, Any, Any], Any]
"""(database, event, recorded event) -> nothing."""


class Projection(metaclass=AppliesMeta):
    """Subclass it, and decorate the methods that take events:

        class Orders(Projection):
            def setup(self, db):
                db.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, total INTEGER)")

            @applies(OrderPlaced)
            def _(self, db, event, envelope):
                db.execute("INSERT INTO orders VALUES (?, ?)", (event.order_id, event.total_cents))

    A method takes (event), (db, event), (event, envelope) or (db, event, envelope). `db` is the connection (or mapping)
    that the projector was given; the projector commits what the method did there together with its checkpoint. Events
    that no method takes are passed over, also those of unknown types.
    """

    name: ClassVar[str] = ""
    """Names the checkpoint; default: the class's name."""

    def setup(self, db: Any) -> None:
        """Make the tables. Called before the first event, and on an empty database by `Projector.rebuild`."""

    def reset(self, db: Any) -> None:
        """Delete what the projection made: `Projector.rebuild` needs it for databases other than SQLite.

        Raises `InvalidConfigError` unless a subclass does it.
        """
        raise InvalidConfigError(
            f"{type(self).__name__} has no reset(db) to empty its tables; rebuilding it in this database needs one"
        )


def apply_of(projection: Projection, event_class: type[Event]) -> Apply | None:
    """How the projection takes events of a class; None: it does not."""
    function = applier_of(type(projection), event_class)
    if function is None:
        return None
    bound = function.__get__(projection)
    count = positional_count(bound)
    if count >= 3:
        return lambda db, event, recorded: bound(db, event, recorded.envelope)
    if count == 2:
        first = next(iter(inspect.signature(bound).parameters))
        if first == "event":
            return lambda db, event, recorded: bound(event, recorded.envelope)
        return lambda db, event, recorded: bound(db, event)
    return lambda db, event, recorded: bound(event)
