"""By orchestration: a saga directs each order through the services, step by step, and undoes what it did on failure.

A step's effect and its idempotency key are one transaction of the service's database, so a step that is repeated after
a crash changes nothing the second time.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import penstock
from examples.orders.faults import Declined
from examples.orders.model import OrderCancelled, OrderCompleted, OrderPlaced, OrderRejected
from examples.orders.services import Email, Inventory, Payment, Service, Shipping
from penstock import events

SAGAS = "sagas"
TOPIC = "events"
RETRY = events.Retry(max_attempts=4, delay=0.02, max_delay=0.1, give_up_on=(Declined,))


class Orchestration:
    """The sagas and services of one process."""

    def __init__(self, broker: penstock.Broker, directory: Path, decline_rate: float) -> None:
        self.broker = broker
        self.bus = events.EventBus(broker, source="orders", topic=TOPIC)
        self.sagas = events.Sagas(broker, SAGAS, bus=self.bus)
        self.inventory = Inventory(directory)
        self.payment = Payment(directory, decline_rate)
        self.shipping = Shipping(directory)
        self.email = Email(directory)
        self._define()

    def _define(self) -> None:
        reserve = once(self.inventory, self.inventory.reserve)
        release = once(self.inventory, self.inventory.release)
        charge = once(self.payment, lambda order: self.payment.charge(order, _attempt()))
        refund = once(self.payment, self.payment.refund)
        ship = once(self.shipping, self.shipping.ship)
        confirm = once(self.email, self.email.send)

        @self.sagas.define("place-order")
        def place_order(saga: events.Saga, order: OrderPlaced) -> str:
            saga.step(self._announce, order, compensate=self._cancelled, name="announce")
            if not saga.step(reserve, order, compensate=release, name="reserve"):
                saga.publish(OrderRejected(order.order_id))
                return "rejected"
            saga.step(charge, order, compensate=refund, retry=RETRY, name="charge")
            saga.step(ship, order, name="ship")
            saga.step(confirm, order, "your order is on its way", name="confirm")
            saga.publish(OrderCompleted(order.order_id, order.cents))
            return "completed"

    def _announce(self, order: OrderPlaced) -> None:
        if order.quantity < 1:
            raise ValueError(f"{order.order_id} is of {order.quantity} units")
        self._publish(order, order.order_id)

    def _cancelled(self, order: OrderPlaced) -> None:
        self._publish(OrderCancelled(order.order_id), order.order_id)

    def _publish(self, event: events.Event, order_id: str) -> None:
        step = events.current_step()
        assert step is not None
        self.bus.publish(event, key=order_id, message_id=str(uuid.uuid5(uuid.NAMESPACE_OID, step.key)))

    def run(self) -> None:
        """Until SIGTERM."""
        self.sagas.run(workers=4)

    def close(self) -> None:
        """Close everything but the broker."""
        self.sagas.close()
        self.bus.close()
        for service in (self.inventory, self.payment, self.shipping, self.email):
            service.close()


def once(service: Service, effect: Callable[..., Any]) -> Callable[..., Any]:
    """The effect in a transaction with the step's key; what it answered the first time is answered again."""
    service.db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer INTEGER)")

    @functools.wraps(effect)
    def call(*args: Any) -> Any:
        step = events.current_step()
        assert step is not None
        with service.transaction() as db:
            found = db.execute("SELECT answer FROM answers WHERE key = ?", (step.key,)).fetchone()
            if found is not None:
                return bool(found[0])
            answer = effect(*args)
            db.execute("INSERT INTO answers VALUES (?, ?)", (step.key, answer is None or bool(answer)))
            return answer is None or bool(answer)

    return call


def _attempt() -> int:
    step = events.current_step()
    return step.attempt if step is not None else 1


class Client:
    """Starts a saga for each order; the same one again is the same saga."""

    def __init__(self, system: Orchestration) -> None:
        self._sagas = system.sagas

    def place(self, orders: Iterable[OrderPlaced]) -> None:
        """Start these."""
        for order in orders:
            self._sagas.start("place-order", order, saga_id=order.order_id)
