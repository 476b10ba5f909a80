"""By choreography: nobody directs. Each service reacts to events, and tells what it did by events.

    OrderPlaced -> inventory -> StockReserved -> payment -> PaymentCaptured -> shipping -> OrderShipped
                                                                            -> e-mail -> OrderCompleted
    OrderPlaced -> inventory -> OrderRejected
    PaymentDeclined -> inventory (release) -> OrderCancelled

One transaction of a service's database holds: the inbox (this event was dealt with), the effect, and the outbox (the
event that tells of it). A relay carries the outbox to the bus. So a crash anywhere repeats nothing and loses nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import penstock
from examples.orders.faults import BankAway, Declined
from examples.orders.model import (
    OrderCancelled,
    OrderCompleted,
    OrderPlaced,
    OrderRejected,
    OrderShipped,
    PaymentCaptured,
    PaymentDeclined,
    StockReserved,
)
from examples.orders.services import Email, Inventory, Payment, Service, Shipping
from penstock import events

TOPIC = "events"
RETRY = events.Retry(max_attempts=3, delay=0.05, max_delay=0.2)
VISIBILITY_S = 2.0
LEASE_S = 1.0
Reaction = Callable[[events.Event], events.Event]


class Choreography:
    """The services of one process, on one bus."""

    def __init__(self, broker: penstock.Broker, directory: Path, decline_rate: float) -> None:
        self.broker = broker
        self.bus = events.EventBus(broker, source="orders", topic=TOPIC)
        self.inventory = Inventory(directory)
        self.payment = Payment(directory, decline_rate)
        self.shipping = Shipping(directory)
        self.email = Email(directory)
        self._relays: list[tuple[events.Outbox, threading.Thread]] = []
        self._react(self.inventory, self._in_inventory, OrderPlaced, PaymentDeclined)
        self._react(self.payment, self._in_payment, StockReserved)
        self._react(self.shipping, self._in_shipping, PaymentCaptured)
        self._react(self.email, self._in_email, OrderShipped)

    # --- what the services do --------------------------------------------------------------------------------------

    def _in_inventory(self, event: events.Event) -> events.Event:
        if isinstance(event, PaymentDeclined):
            self.inventory.release(event.order)
            return OrderCancelled(event.order.order_id)
        assert isinstance(event, OrderPlaced)
        return StockReserved(event) if self.inventory.reserve(event) else OrderRejected(event.order_id)

    def _in_payment(self, event: events.Event) -> events.Event:
        assert isinstance(event, StockReserved)
        for attempt in (1, 2, 3):
            try:
                self.payment.charge(event.order, attempt)
                return PaymentCaptured(event.order)
            except BankAway:
                continue
            except Declined as error:
                return PaymentDeclined(event.order, str(error))
        raise BankAway(event.order.order_id)

    def _in_shipping(self, event: events.Event) -> events.Event:
        assert isinstance(event, PaymentCaptured)
        self.shipping.ship(event.order)
        return OrderShipped(event.order)

    def _in_email(self, event: events.Event) -> events.Event:
        assert isinstance(event, OrderShipped)
        self.email.send(event.order, "your order is on its way")
        return OrderCompleted(event.order.order_id, event.order.cents)

    # --- how they do it once ---------------------------------------------------------------------------------------

    def _react(self, service: Service, reaction: Reaction, *event_types: type[events.Event]) -> None:
        outbox = events.Outbox(service.db, topic=TOPIC, source=service.name, name=service.name)

        @self.bus.on(
            *event_types, group=service.name, batch=True, retry=RETRY, ordered=False, prefetch=500,
            visibility_timeout=VISIBILITY_S,
        )  # fmt: skip
        def handle(batch: list[events.Event], envelopes: list[events.Envelope]) -> None:
            with service.transaction():
                fresh = {envelope.message_id for envelope in service.inbox.unseen(envelopes)}
                for event, envelope in zip(batch, envelopes, strict=True):
                    if envelope.message_id in fresh:
                        fresh.discard(envelope.message_id)  # the same one twice in a batch
                        service.inbox.remember(envelope)
                        with events.handling(envelope):
                            outbox.add(told := reaction(event), key=_order_id(told))

        relay = events.Outbox(service.path, topic=TOPIC, source=service.name, name=service.name)
        thread = threading.Thread(
            target=relay.run, args=(self.bus,), kwargs={"poll_interval": 0.02, "lease": LEASE_S}, daemon=True
        )
        self._relays.append((relay, thread))

    def run(self) -> None:
        """Until SIGTERM."""
        for _, thread in self._relays:
            thread.start()
        self.bus.run(workers=1)
        for relay, thread in self._relays:
            relay.stop()
            thread.join()
            relay.close()

    def close(self) -> None:
        """Close everything but the broker."""
        self.bus.close()
        for service in (self.inventory, self.payment, self.shipping, self.email):
            service.close()


class Client:
    """Publishes orders; the same one again has the same message id, as a client's retry has."""

    def __init__(self, system: Choreography) -> None:
        self._bus = system.bus
        self._envelopes: dict[str, events.Envelope] = {}

    def place(self, orders: Iterable[OrderPlaced]) -> None:
        """Publish these."""
        known = self._envelopes
        sent = []
        for order in orders:
            if order.order_id not in known:
                known[order.order_id] = events.Envelope.wrap(order, source="shop", correlation_id=order.order_id)
            sent.append(known[order.order_id])
        self._bus.publish_many(sent, keys=[envelope.correlation_id for envelope in sent])


def _order_id(event: events.Event) -> str:
    order = getattr(event, "order", event)
    return str(order.order_id)
