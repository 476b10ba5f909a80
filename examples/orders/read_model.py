"""The read model: where each order is, as a projection of the events into SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

from examples.orders.model import (
    FINAL,
    OrderCancelled,
    OrderCompleted,
    OrderPlaced,
    OrderRejected,
    OrderShipped,
    PaymentCaptured,
    PaymentDeclined,
    StockReserved,
)
from penstock import events

_MOVE = (
    "UPDATE orders SET state = ?, events = events + 1"
    " WHERE id = ? AND state NOT IN ('completed', 'cancelled', 'rejected')"
)


class Orders(events.Projection):
    """One row an order. A final event that comes twice counts in `finals`, unless it is the same message again."""

    def setup(self, db: sqlite3.Connection) -> None:
        db.execute(
            "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, customer TEXT, cents INTEGER, state TEXT,"
            " events INTEGER DEFAULT 1)"
        )
        db.execute("CREATE TABLE IF NOT EXISTS finals (id TEXT, state TEXT, message_id TEXT UNIQUE)")

    @events.applies(OrderPlaced)
    def _(self, db: sqlite3.Connection, event: OrderPlaced, envelope: Any) -> None:
        db.execute(
            "INSERT OR IGNORE INTO orders (id, customer, cents, state) VALUES (?, ?, ?, 'placed')",
            (event.order_id, event.customer, event.cents),
        )

    @events.applies(StockReserved)
    def _(self, db: sqlite3.Connection, event: StockReserved, envelope: Any) -> None:
        db.execute(_MOVE, ("reserved", event.order.order_id))

    @events.applies(PaymentCaptured)
    def _(self, db: sqlite3.Connection, event: PaymentCaptured, envelope: Any) -> None:
        db.execute(_MOVE, ("paid", event.order.order_id))

    @events.applies(PaymentDeclined)
    def _(self, db: sqlite3.Connection, event: PaymentDeclined, envelope: Any) -> None:
        db.execute(_MOVE, ("declined", event.order.order_id))

    @events.applies(OrderShipped)
    def _(self, db: sqlite3.Connection, event: OrderShipped, envelope: Any) -> None:
        db.execute(_MOVE, ("shipped", event.order.order_id))

    @events.applies(OrderCompleted)
    def _(self, db: sqlite3.Connection, event: OrderCompleted, envelope: Any) -> None:
        _finish(db, event.order_id, envelope)

    @events.applies(OrderCancelled)
    def _(self, db: sqlite3.Connection, event: OrderCancelled, envelope: Any) -> None:
        _finish(db, event.order_id, envelope)

    @events.applies(OrderRejected)
    def _(self, db: sqlite3.Connection, event: OrderRejected, envelope: Any) -> None:
        _finish(db, event.order_id, envelope)


def _finish(db: sqlite3.Connection, order_id: str, envelope: Any) -> None:
    state = FINAL[envelope.type]
    db.execute(_MOVE, (state, order_id))
    db.execute("INSERT OR IGNORE INTO finals VALUES (?, ?, ?)", (order_id, state, envelope.message_id))
