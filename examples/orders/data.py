"""The orders: real ones of a file, or made ones of the same shape."""

from __future__ import annotations

import csv
import random
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from examples.orders.model import OrderPlaced

COLUMNS = ("InvoiceNo", "CustomerID", "TotalPrice")
PRODUCTS = 100
SHORT = 50  # every so many units that are ordered, one is missing
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "online_retail_orders.csv"


def read_orders(path: Path | None, limit: int | None) -> tuple[list[OrderPlaced], str]:
    """The orders, and where they come from. Raises `OSError`, `ValueError` (the file is not of that kind)."""
    found = path or BESIDE
    if path is None and not found.exists():
        return made_orders(18_532 if limit is None else limit), "made orders"
    with found.open(newline="", encoding="utf-8") as lines:
        table = csv.DictReader(lines)
        missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise ValueError(f"{found} has no column {', '.join(missing)}; needed are {', '.join(COLUMNS)}")
        rows = [tuple(row[name] for name in COLUMNS) for row in table]
    orders = [_checked_order(found, *row) for row in rows[:limit]]
    if len({order.order_id for order in orders}) < len(orders):
        raise ValueError(f"{found} has an InvoiceNo twice; one line an order is needed")
    return orders, found.name


def made_orders(count: int) -> list[OrderPlaced]:
    """Orders with totals spread as those of a shop are."""
    generator = random.Random(7)
    return [
        _order(str(n), str(n % 4338), str(generator.lognormvariate(5.6, 1.1))) for n in range(500_000, 500_000 + count)
    ]


def _checked_order(file: Path, number: str, customer: str, total: str) -> OrderPlaced:
    try:
        return _order(number, customer, total)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: order {number!r} of {total!r} is none; a number and an amount are needed") from error


def _order(number: str, customer: str, total: str) -> OrderPlaced:
    cents = int((Decimal(total) * 100).to_integral_value(ROUND_HALF_UP))
    place = int(number)
    return OrderPlaced(f"order-{number}", customer, f"sku-{place % PRODUCTS}", 1 + place % 3, cents)


def initial_stock(orders: list[OrderPlaced]) -> dict[str, int]:
    """How many of each product there are: a little less than is ordered."""
    ordered: dict[str, int] = {}
    for order in orders:
        ordered[order.sku] = ordered.get(order.sku, 0) + order.quantity
    stock: dict[str, int] = {}
    before = 0
    for sku, units in ordered.items():
        stock[sku] = units - ((before + units) // SHORT - before // SHORT)
        before += units
    return stock
