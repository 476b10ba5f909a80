"""Names that are members of a StrEnum, or of another class of str, are the names that they say."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import events


class Names(enum.StrEnum):
    SHOP = "shop"
    KEY = "key-1"
    GO = "go"
    UUID = "01890a5d-ac96-774b-bcce-b302099a8057"


class Text(str):
    """A str of another class."""


class Named(events.Event, type=Text("test.NamedByEnum")):  # type: ignore[call-arg]
    number: int


@pytest.mark.parametrize("of", [lambda name: name, lambda name: Text(name.value)], ids=["StrEnum", "subclass"])
def test_names_may_be_of_a_class_of_str(tmp_path: Path, of: Any) -> None:
    shop, key, go, uuid = map(of, Names)
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        topic = broker.create_topic(Text("orders"))
        assert type(topic.name) is str and topic.append(b"x").topic == "orders"
        store = events.EventStore(broker, shop, source=key)
        store.append(key, Named(1), tags=[go])
        (stored,) = store.query(events.Query(types=[Text("test.NamedByEnum")], tags=[go]))
        assert (stored.stream, stored.envelope.source, stored.tags) == ("key-1", "key-1", ("go",))
        assert len(store.subscription(go, stream=key).receive(wait=0)) == 1
        with events.EventBus(broker, source=key, topic=go) as bus, events.Sagas(broker, key, bus=bus) as sagas:
            seen: list[Any] = []
            bus.on(Named, group=shop, idempotent=True)(seen.append)
            bus.publish(Named(2), key=key, correlation_id=uuid, message_id=uuid)
            bus.run_until_idle()
            assert seen == [Named(2)] and bus.groups == ["shop"] and bus.dead_letters(shop) == []
            assert len(events.timeline(broker, uuid, topics=[go])) == 1

            @sagas.define(shop)
            def waits(saga: events.Saga) -> Any:
                saga.step(int, name=key, key=uuid)
                return saga.wait_for(go)

            sagas.start(shop, saga_id=uuid, correlation_id=key)
            sagas.signal(uuid, go, 5)
            sagas.run_until_idle()
            assert sagas.handle(uuid).result(0) == 5
        with events.Inbox(tmp_path / "inbox.db", group=shop) as inbox:
            assert [inbox.remember(uuid), inbox.seen(Names.UUID.value), inbox.remember(uuid)] == [1, True, 0]
            assert not inbox.seen(key)
        with events.Outbox(tmp_path / "outbox.db", topic=go, source=key, name=shop) as outbox:
            outbox.add(Named(3), key=key)
            assert outbox.relay(broker) == 1
