"""The services: each with a database of its own, in which every effect is a row that nothing but the inbox guards.

There is no unique constraint on orders in the ledgers: an effect that happened twice would show in the balance.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.orders.faults import BankAway, Declined, declines, is_away
from examples.orders.model import OrderPlaced
from penstock import events

LEDGERS = {
    "inventory": "CREATE TABLE IF NOT EXISTS ledger (order_id TEXT, sku TEXT, units INTEGER)",
    "payment": "CREATE TABLE IF NOT EXISTS ledger (order_id TEXT, cents INTEGER)",
    "shipping": "CREATE TABLE IF NOT EXISTS ledger (order_id TEXT, units INTEGER)",
    "email": "CREATE TABLE IF NOT EXISTS ledger (order_id TEXT, subject TEXT)",
}


class Service:
    """A database with a ledger, and an inbox that remembers what was dealt with, in the same transaction."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.path = directory / f"{name}.sqlite3"
        self.db = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")
        self.db.execute(LEDGERS[name])
        self.inbox = events.Inbox(self.db, name)
        self._thread_lock = threading.Lock()
        self._process_lock = open(directory / f"{name}.lock", "w", encoding="ascii")  # noqa: SIM115

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block, or nothing. Writers queue at a lock: SQLite would have them sleep and try again."""
        with self._thread_lock:
            fcntl.flock(self._process_lock, fcntl.LOCK_EX)
            try:
                self.db.execute("BEGIN IMMEDIATE")
                try:
                    yield self.db
                except BaseException:
                    self.db.execute("ROLLBACK")
                    raise
                self.db.execute("COMMIT")
            finally:
                fcntl.flock(self._process_lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the database."""
        self.db.close()
        self._process_lock.close()


class Inventory(Service):
    """How many of each product there are; reserving takes them away."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "inventory")
        self.db.execute("CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, units INTEGER)")

    def fill(self, stock: dict[str, int]) -> None:
        """Put the goods there before the shop opens."""
        with self.transaction() as db:
            db.executemany("INSERT INTO stock VALUES (?, ?)", stock.items())

    def reserve(self, order: OrderPlaced) -> bool:
        """Whether there was enough. In the caller's transaction."""
        if order.quantity < 1:
            raise ValueError(f"{order.order_id} is of {order.quantity} units")
        taken = self.db.execute(
            "UPDATE stock SET units = units - ? WHERE sku = ? AND units >= ?",
            (order.quantity, order.sku, order.quantity),
        ).rowcount
        if taken:
            self.db.execute("INSERT INTO ledger VALUES (?, ?, ?)", (order.order_id, order.sku, -order.quantity))
        return bool(taken)

    def release(self, order: OrderPlaced) -> None:
        """Put the goods back. In the caller's transaction."""
        self.db.execute("UPDATE stock SET units = units + ? WHERE sku = ?", (order.quantity, order.sku))
        self.db.execute("INSERT INTO ledger VALUES (?, ?, ?)", (order.order_id, order.sku, order.quantity))


class Payment(Service):
    """Takes money; declines some orders for good, and is away for others at first."""

    def __init__(self, directory: Path, decline_rate: float) -> None:
        super().__init__(directory, "payment")
        self._rate = decline_rate

    def charge(self, order: OrderPlaced, attempt: int = 2) -> None:
        """Take the money, or `Declined`, or `BankAway`. In the caller's transaction."""
        if is_away(order.order_id, attempt):
            raise BankAway(order.order_id)
        if declines(order.order_id, self._rate):
            raise Declined(f"{order.order_id}: insufficient funds")
        self.db.execute("INSERT INTO ledger VALUES (?, ?)", (order.order_id, order.cents))

    def refund(self, order: OrderPlaced) -> None:
        """Give the money back. In the caller's transaction."""
        self.db.execute("INSERT INTO ledger VALUES (?, ?)", (order.order_id, -order.cents))


class Shipping(Service):
    """Sends goods off."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "shipping")

    def ship(self, order: OrderPlaced) -> None:
        """In the caller's transaction."""
        self.db.execute("INSERT INTO ledger VALUES (?, ?)", (order.order_id, order.quantity))


class Email(Service):
    """Writes to customers."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "email")

    def send(self, order: OrderPlaced, subject: str) -> None:
        """In the caller's transaction."""
        self.db.execute("INSERT INTO ledger VALUES (?, ?)", (order.order_id, subject))
