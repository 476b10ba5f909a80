"""What was closed says so, whatever is asked of it; closing it twice is fine, and so is stopping what does not run."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import events


class Closed(events.Event, type="test.Closed"):
    number: int


class Ask(events.Command):
    number: int


class Thing(events.Aggregate):
    number: int = 0


class Things(events.Projection):
    @events.applies(Closed)
    def _(self, db: Any, event: Closed) -> None:
        raise AssertionError("nothing is applied")


def store(broker: penstock.Broker) -> events.EventStore:
    return events.EventStore(broker, "shop")


def bus(broker: penstock.Broker) -> events.EventBus:
    made = events.EventBus(broker)
    made.on(Closed, group="g", idempotent=True)(lambda event: None)
    return made


def sagas(broker: penstock.Broker) -> events.Sagas:
    made = events.Sagas(broker)
    made.define("saga")(lambda saga: None)
    return made


def projector_of(source: Callable[[penstock.Broker], Any], in_memory: bool) -> Callable[[penstock.Broker], Any]:
    return lambda broker: events.Projector(source(broker), Things(), None if in_memory else broker.path / "model.db")


def commands(broker: penstock.Broker) -> events.CommandBus:
    made = events.CommandBus(store(broker))
    made.handler(Ask)(lambda command: None)
    return made


def used(broker: penstock.Broker) -> Path:
    """A database that the tests did not put into the data directory."""
    return broker.path.parent / "app.db"


MAKERS: dict[str, Callable[[penstock.Broker], Any]] = {
    "store": store,
    "snapshots": lambda broker: store(broker).snapshots,
    "bus": bus,
    "sagas": sagas,
    "projector of a store": projector_of(store, False),
    "projector of a store in memory": projector_of(store, True),
    "projector of a bus": projector_of(bus, False),
    "commands": commands,
    "outbox": lambda broker: events.Outbox(used(broker)),
    "inbox": lambda broker: events.Inbox(used(broker)),
}
CALLS: dict[str, Callable[[Any], Any]] = {
    "add": lambda one: one.add(Closed(1)),
    "append": lambda one: one.append("s-1", Closed(1)),
    "append_if": lambda one: one.append_if(Closed(1), tags=["t"], unless=events.Query(tags=["t"])),
    "append_many": lambda one: one.append_many({"s-1": (Closed(1), events.ANY)}),
    "cancel": lambda one: one.cancel("s"),
    "delete_subscription": lambda one: one.delete_subscription("work"),
    "dispatch": lambda one: one.dispatch(Ask(1)),
    "dispatch_async": lambda one: asyncio.run(one.dispatch_async(Ask(1))),
    "forget": lambda one: one.forget("m"),
    "handle": lambda one: one.handle("s"),
    "handler": lambda one: one.handler(Thing),
    "info": lambda one: one.info(Thing, "t-1"),
    "inspect": lambda one: one.inspect("s"),
    "load": lambda one: one.load(Thing, "t-1"),
    "on": lambda one: one.on(Closed),
    "once": lambda one: one.once("m").__enter__(),
    "publish": lambda one: one.publish(Closed(1)),
    "publish_many": lambda one: one.publish_many([]),
    "query": lambda one: one.query(events.Query(types=[Closed])),
    "read_category": lambda one: one.read_category("s"),
    "rebuild": lambda one: one.rebuild(Thing, "t-1") if hasattr(one, "take") else one.rebuild(),
    "redrive": lambda one: one.redrive("g"),
    "relay": lambda one: one.relay(penstock),
    "remember": lambda one: one.remember(),
    "retry": lambda one: one.retry("s"),
    "run": lambda one: one.run(penstock) if isinstance(one, events.Outbox) else one.run(),
    "save": lambda one: one.save(Thing("t-1")),
    "save_all": lambda one: one.save_all([]),
    "seen": lambda one: one.seen("m"),
    "serve": lambda one: asyncio.run(one.serve()),
    "signal": lambda one: one.signal("s", "go"),
    "signal_event": lambda one: one.signal_event(Closed(1), "c"),
    "start": lambda one: one.start("saga") if isinstance(one, events.Sagas) else one.start(),
    "streams": lambda one: next(one.streams()),
    "subscription": lambda one: one.subscription("work"),
    "take": lambda one: one.take(Thing("t-1")),
    "truncate": lambda one: one.truncate("s-1", 1),
    "unseen": lambda one: one.unseen([]),
    "wait": lambda one: one.wait(0, 0),
    **{
        name: lambda one, name=name: getattr(one, name)("s-1")
        for name in ("delete", "read", "set_limits", "tombstone", "version")
    },
}
STILL = {"close", "groups", "join", "leave_parent", "stop"}  # the end may be asked for again


def public(made: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every public method, and property that asks for something, of an object."""
    for name in sorted(set(dir(type(made))) - STILL):
        if name.startswith("_"):
            continue
        if isinstance(inspect.getattr_static(type(made), name), property):
            yield name, lambda name=name: getattr(made, name)
        elif name in CALLS:
            yield name, lambda name=name: CALLS[name](made)
        else:
            yield name, getattr(made, name)


OF_NO_BROKER = ("inbox", "outbox")
CASES = [
    (kind, how) for kind in MAKERS for how in ("itself", "its broker") if how == "itself" or kind not in OF_NO_BROKER
]


@pytest.mark.parametrize(("kind", "how"), CASES)
def test_every_public_method_says_so(tmp_path: Path, kind: str, how: str) -> None:
    with penstock.open(tmp_path / "data") as broker:
        made = MAKERS[kind](broker)
        closed = {"itself": made, "its broker": broker}[how]
        if how == "itself" and kind in ("snapshots", "commands"):
            closed = made._store if kind == "snapshots" else made.store
        closed.close()
        closed.close()
        calls = dict(public(made))
        assert len(calls) >= 3
        for name, call in calls.items():
            with pytest.raises(penstock.ClosedError):
                call()
                pytest.fail(f"{kind}.{name} answers")
        for name in STILL & set(dir(made)) - {"leave_parent", "groups"}:
            getattr(made, name)()


@pytest.mark.parametrize("kind", [events.Inbox, events.Outbox])
def test_one_that_was_given_a_connection_leaves_it_open(tmp_path: Path, kind: Any) -> None:
    connection = sqlite3.connect(tmp_path / "app.db")
    made = kind(connection)
    made.close()
    for name, call in public(made):
        with pytest.raises(penstock.ClosedError):
            call()
            pytest.fail(f"{name} answers")
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.close()


def test_handles_and_subscriptions_of_what_was_closed(broker: penstock.Broker) -> None:
    made = sagas(broker)
    handle = made.start("saga")
    made.close()
    for call in (lambda: handle.status, lambda: handle.result(0)):
        with pytest.raises(penstock.ClosedError):
            call()
    shop = store(broker)
    shop.append("s-1", [Closed(number) for number in range(5)])
    work, follower = shop.subscription("work", max_receives=1), shop.subscribe()
    received = work.receive(wait=0)
    assert next(follower).event == Closed(0)
    shop.close()
    assert work.closed and follower.closed and list(follower) == []
    for settle in (received[0].park, received[0].nack, work.parked, work.info, lambda: work.receive(wait=0)):
        with pytest.raises(penstock.ClosedError):
            settle()
    received[1].ack()  # a word in the group's state
    assert not list(broker.path.glob("shop.subscriptions.sqlite3-wal")), "the store's file stays closed"


def test_a_worker_that_failed_does_not_keep_the_rest_open(broker: penstock.Broker, tmp_path: Path) -> None:
    shop = bus(broker)
    shop.on(Closed, group="ends")(exits)
    shop.publish(Closed(1))
    shop.start(groups=["ends"]).join(20)
    with pytest.raises(SystemExit):
        shop.close()
    with pytest.raises(penstock.ClosedError):
        shop.publish(Closed(2))
    assert shop.groups == []


def exits(event: Closed) -> None:
    raise SystemExit("enough")


def test_a_projector_ends_when_its_store_is_closed(broker: penstock.Broker, caplog: pytest.LogCaptureFixture) -> None:
    shop = store(broker)
    with events.Projector(shop, Things(), {}, retry=events.Retry(delay=60)) as projector:
        projector.start()
        thread = projector._thread
        assert thread is not None
        shop.close()
        thread.join(20)
        assert not thread.is_alive()
        projector.stop()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_events_for_sagas_that_were_closed_are_given_back(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path / "data", clock=clock) as broker, events.EventBus(broker) as shared:

        def waits(saga: events.Saga) -> int:
            return saga.wait_for(Closed).number

        before = events.Sagas(broker, bus=shared)
        before.define("waits", awaits=[Closed])(waits)
        before.start("waits", saga_id="s")
        before.run_until_idle()
        before.close()
        shared.publish(Closed(7), correlation_id="s")
        for _ in range(10):
            shared.run_until_idle()
            clock.advance(2)
        assert shared.dead_letters() == []
        shared.close()
        with events.EventBus(broker) as again, events.Sagas(broker, bus=again) as after:
            after.define("waits", awaits=[Closed])(waits)
            again.run_until_idle()
            after.run_until_idle()
            assert after.handle("s").result(0) == 7
