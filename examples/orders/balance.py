"""The end of the day: money, stock and order states against each other, to the cent."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from examples.orders.faults import declines
from examples.orders.model import OrderPlaced


@dataclass
class Balance:
    """What was found; balanced when there are no problems."""

    states: dict[str, int]
    ordered_cents: int
    paid_cents: int
    completed_cents: int
    units_sold: int
    units_left: int
    units_before: int
    problems: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        """Whether everything fits together."""
        return not self.problems


def check(directory: Path, orders: list[OrderPlaced], before: dict[str, int], decline_rate: float) -> Balance:
    """Read every service's ledger and the read model, and compare them with the orders."""
    finals = _grouped(directory / "read-model.sqlite3", "SELECT id, state FROM finals")
    stock = dict(_rows(directory / "inventory.sqlite3", "SELECT sku, units FROM stock"))
    moves = _grouped(directory / "inventory.sqlite3", "SELECT order_id, units FROM ledger ORDER BY rowid")
    money = _grouped(directory / "payment.sqlite3", "SELECT order_id, cents FROM ledger")
    shipped = _grouped(directory / "shipping.sqlite3", "SELECT order_id, units FROM ledger")
    mails = _grouped(directory / "email.sqlite3", "SELECT order_id, subject FROM ledger")
    shown = _grouped(directory / "read-model.sqlite3", "SELECT id, state FROM orders WHERE id NOT LIKE 'poison-%'")
    ids = {order.order_id for order in orders}
    sold = [order for order in orders if finals.get(order.order_id) == ["completed"]]
    found = Balance(
        states=dict(Counter(states[0] for states in finals.values())),
        ordered_cents=sum(order.cents for order in orders),
        paid_cents=sum(cents for rows in money.values() for cents in rows),
        completed_cents=sum(order.cents for order in sold),
        units_sold=sum(order.quantity for order in sold),
        units_left=sum(stock.values()),
        units_before=sum(before.values()),
    )
    for name, table in (("finals", finals), ("stock", moves), ("money", money), ("shipped", shipped), ("mails", mails)):
        if strangers := table.keys() - ids:
            found.problems.append(f"{name}: {len(strangers)} orders that nobody placed, such as {min(strangers)}")
    for order in orders:
        tables = (finals, shown, moves, money, shipped, mails)
        rows = [table.get(order.order_id, []) for table in tables]
        if problem := _problem(order, decline_rate, *rows):
            found.problems.append(f"{order.order_id}: {problem}")
    for sku, units in before.items():
        gone = sum(order.quantity for order in sold if order.sku == sku)
        if stock[sku] != units - gone or stock[sku] < 0:
            found.problems.append(f"{sku}: {units} before, {gone} sold, {stock[sku]} left")
    if found.paid_cents != found.completed_cents:
        found.problems.append(f"{found.paid_cents} cents were paid, {found.completed_cents} are of completed orders")
    return found


def _problem(
    order: OrderPlaced, decline_rate: float, finals: list, shown: list, moves: list, money: list, shipped: list,
    mails: list,
) -> str:  # fmt: skip
    """What is wrong with one order; "" when nothing is."""
    if len(finals) != 1:
        return f"{len(finals)} final states: {finals}"
    state = finals[0]
    if shown != [state]:
        return f"the read model shows {shown}, final is {state}"
    if state == "cancelled" and not declines(order.order_id, decline_rate):
        return "cancelled although its payment was good"
    if state == "completed" and declines(order.order_id, decline_rate):
        return "completed although its payment was declined"
    units, cents = order.quantity, order.cents
    expected = {
        "completed": ([-units], [cents], [units], 1),
        "cancelled": ([-units, units], [], [], 0),
        "rejected": ([], [], [], 0),
    }[state]
    actual = (moves, money, shipped, len(mails))
    return "" if actual == expected else f"{state}: ledgers have {actual}, expected is {expected}"


def _rows(path: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(path, timeout=60)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def _grouped(path: Path, query: str) -> dict[str, list]:
    found: dict[str, list] = defaultdict(list)
    for key, value in _rows(path, query):
        found[key].append(value)
    return dict(found)
