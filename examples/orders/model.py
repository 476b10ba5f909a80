"""The events of the order system."""

from __future__ import annotations

from penstock import events


class OrderPlaced(events.Event, type="OrderPlaced", version=1):
    """A customer ordered."""

    order_id: str
    customer: str
    sku: str
    quantity: int
    cents: int


class StockReserved(events.Event, type="StockReserved", version=1):
    """The goods are set aside."""

    order: OrderPlaced


class PaymentCaptured(events.Event, type="PaymentCaptured", version=1):
    """The customer has paid."""

    order: OrderPlaced


class PaymentDeclined(events.Event, type="PaymentDeclined", version=1):
    """The customer's bank said no."""

    order: OrderPlaced
    reason: str


class OrderShipped(events.Event, type="OrderShipped", version=1):
    """The goods are on their way, and the customer was told."""

    order: OrderPlaced


class OrderCompleted(events.Event, type="OrderCompleted", version=1):
    """Final: paid, shipped, and confirmed by e-mail."""

    order_id: str
    cents: int


class OrderCancelled(events.Event, type="OrderCancelled", version=1):
    """Final: not paid; the goods are back in stock."""

    order_id: str


class OrderRejected(events.Event, type="OrderRejected", version=1):
    """Final: there were not enough goods."""

    order_id: str


FINAL = {"OrderCompleted": "completed", "OrderCancelled": "cancelled", "OrderRejected": "rejected"}
