"""The orders: real ones of a file, or made ones of the same shape."""

from __future__ import annotations

import csv
import random
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from examples.orders.model import OrderPlaced

PRODUCTS = 100
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "online_retail_orders.csv"


def read_orders(path: Path | None, limit: int | None) -> tuple[list[OrderPlaced], str]:
    """The orders, and where they come from."""
    found = path or BESIDE
    if path is None and not found.exists():
        return made_orders(limit or 18_532), "made orders"
    with found.open(newline="", encoding="utf-8") as lines:
        rows = [(row["InvoiceNo"], row["CustomerID"], row["TotalPrice"]) for row in csv.DictReader(lines)]
    return [_order(*row) for row in rows[:limit]], found.name


def made_orders(count: int) -> list[OrderPlaced]:
    """Orders with totals spread as those of a shop are."""
    generator = random.Random(7)
    return [
        _order(str(n), str(n % 4338), str(generator.lognormvariate(5.6, 1.1))) for n in range(500_000, 500_000 + count)
    ]


def _order(number: str, customer: str, total: str) -> OrderPlaced:
    cents = int((Decimal(total) * 100).to_integral_value(ROUND_HALF_UP))
    place = int(number)
    return OrderPlaced(f"order-{number}", customer, f"sku-{place % PRODUCTS}", 1 + place % 3, cents)


def initial_stock(orders: list[OrderPlaced], plenty: float = 0.98) -> dict[str, int]:
    """How many of each product there are: a little less than is ordered."""
    ordered: dict[str, int] = {}
    for order in orders:
        ordered[order.sku] = ordered.get(order.sku, 0) + order.quantity
    return {sku: int(count * plenty) for sku, count in ordered.items()}
