"""Sagas and the event bus: published events carry the correlation id, awaited ones find their saga by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock import events
from penstock.clock import VirtualClock


class ParcelAsked(events.Event, type="ParcelAsked", version=1):
    """Published by the saga."""

    order_id: str


class ParcelSent(events.Event, type="ParcelSent", version=1):
    """Awaited by the saga."""

    order_id: str
    weight: int


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[events.EventBus]:
    with penstock.open(tmp_path / "data", clock=VirtualClock()) as broker:
        with events.EventBus(broker, source="shop") as made:
            yield made


def test_an_event_answers_the_saga_that_asked(bus) -> None:
    sagas = events.Sagas(bus.broker, bus=bus, partitions=2)
    seen: list[events.Envelope] = []

    @bus.on(ParcelAsked, group="warehouse")
    def send(event, envelope) -> None:
        seen.append(envelope)
        for weight in (1, 9):
            bus.publish(ParcelSent(event.order_id, weight))

    @sagas.define("ship", awaits=[ParcelSent])
    def ship(saga, order_id):
        saga.publish(ParcelAsked(order_id))
        heavy = saga.wait_for(ParcelSent, where=lambda event: event.weight > 5)
        light = saga.wait_for(ParcelSent, timeout=60)
        return [heavy.weight, light.weight, type(light).__name__]

    mine = sagas.start("ship", "o-1", saga_id="s-1")
    told = sagas.start("ship", "o-2", saga_id="s-2", correlation_id="case-7")
    sagas.run_until_idle()
    assert [mine.status, told.status] == ["waiting", "waiting"]
    bus.run_until_idle()
    sagas.run_until_idle()
    assert mine.result(0) == told.result(0) == [9, 1, "ParcelSent"]
    assert sorted(envelope.correlation_id for envelope in seen) == ["case-7", "s-1"]
    sagas.close()


def test_events_of_steps_and_sagas_started_by_events_share_the_correlation(bus) -> None:
    sagas = events.Sagas(bus.broker, bus=bus, partitions=1)
    seen: list[str] = []

    @bus.on(ParcelSent, group="log")
    def note(event, envelope) -> None:
        seen.append(envelope.correlation_id)

    @sagas.define("answer")
    def answer(saga, order_id):
        saga.step(lambda: bus.publish(ParcelSent(order_id, 1)).message_id)
        return saga.correlation_id

    @bus.on(ParcelAsked, group="shop")
    def begin(event) -> None:
        sagas.start("answer", event.order_id, saga_id=event.order_id)

    bus.publish(ParcelAsked("o-1"), correlation_id="case-1")
    bus.run_until_idle()
    sagas.run_until_idle()
    bus.run_until_idle()
    assert seen == ["case-1"]
    assert sagas.handle("o-1").result(0) == "case-1"
    sagas.close()


def test_a_repeated_publication_has_the_same_id(bus, monkeypatch) -> None:
    sagas = events.Sagas(bus.broker, bus=bus, partitions=1)
    identities: list[str] = []
    publish = bus.publish

    def unlucky(*args, **options):
        identities.append(publish(*args, **options).message_id)
        if len(identities) == 1:
            raise KeyboardInterrupt  # before it is journaled

    monkeypatch.setattr(bus, "publish", unlucky)

    @sagas.define("asks")
    def asks(saga):
        saga.publish(ParcelAsked("o-1"))

    handle = sagas.start("asks", saga_id="s")
    with pytest.raises(KeyboardInterrupt):
        sagas.run_until_idle()
    sagas.run_until_idle()
    assert handle.status == "completed"
    assert len(identities) == 2
    assert len(set(identities)) == 1
    sagas.close()


def test_without_a_bus(broker) -> None:
    with events.Sagas(broker, partitions=1) as sagas:
        with pytest.raises(penstock.InvalidArgumentError, match="give Sagas a bus"):
            sagas.define("x", awaits=[ParcelSent])

        @sagas.define("alone")
        def alone(saga):
            saga.publish(ParcelAsked("o-1"))

        handle = sagas.start("alone")
        sagas.run_until_idle()
        with pytest.raises(events.SagaFailedError, match="no bus to publish on"):
            handle.result(0)
