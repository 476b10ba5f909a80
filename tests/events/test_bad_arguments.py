"""What callers may get wrong: each is refused with a typed error that names the argument, before anything is stored."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import PenstockError, VirtualClock, events
from penstock.observe import Alerts

HALF = "\ud800"
"""Half of a surrogate pair: a str without a UTF-8 form."""


class BoxPacked(events.Event):
    item: Any


class PackBox(events.Command):
    item: Any


class Box(events.Aggregate):
    count: int = 0

    @events.applies(BoxPacked)
    def _(self, event: BoxPacked) -> None:
        self.count += 1


class Boxes(events.Projection):
    @events.applies(BoxPacked)
    def _(self, event: BoxPacked) -> None:
        pass


class Given:
    """Everything that the calls below need."""

    def __init__(self, broker: penstock.Broker) -> None:
        self.broker = broker
        self.store = events.EventStore(broker, "shop")
        self.bus = events.EventBus(broker)
        self.sagas = events.Sagas(broker)
        self.commands = events.CommandBus(self.store)
        self.commands.handler(PackBox)(lambda command: None)
        self.database = sqlite3.connect(":memory:")
        self.inbox = events.Inbox(self.database)
        self.outbox = events.Outbox(self.database)
        self.projector = events.Projector(self.store, Boxes())


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    with penstock.open(tmp_path / "data", fsync="never", clock=VirtualClock()) as broker:
        made = Given(broker)
        yield made
        made.database.close()


def needs_token(event: Any, *, token: str) -> None:
    """What nobody can call with an event alone."""


Call = Callable[[Given], Any]
BOX = BoxPacked("tea")
CLOUD_EVENT = {"specversion": "1.0", "id": "1", "type": "BoxPacked", "source": "shop", "time": "2030-01-01T00:00:00Z"}
CALLS: list[tuple[str, Call]] = [
    ("broker", lambda at: events.EventStore(None, "shop")),  # type: ignore[arg-type]
    ("name", lambda at: events.EventStore(at.broker, HALF)),
    ("name", lambda at: events.EventStore(at.broker, None)),  # type: ignore[arg-type]
    ("source", lambda at: events.EventStore(at.broker, "shop", source=HALF)),
    ("max_age", lambda at: at.store.set_limits("s", max_age=math.inf)),
    ("max_age", lambda at: at.store.set_limits("s", max_age=math.nan)),
    ("timeout", lambda at: at.store.wait(0, math.nan)),
    ("id", lambda at: at.store.load(Box, HALF)),
    ("as_of", lambda at: at.store.load(Box, "b", as_of=1 << 64)),
    ("as_of", lambda at: at.store.load(Box, "b", as_of=-(1 << 70))),
    ("aggregates", lambda at: at.store.save_all(None)),  # type: ignore[arg-type]
    ("cls", lambda at: at.store.snapshots.info(None, "b")),  # type: ignore[arg-type]
    ("id", lambda at: at.store.snapshots.info(Box, [])),  # type: ignore[arg-type]
    ("id", lambda at: at.store.snapshots.delete({})),  # type: ignore[arg-type]
    ("key", lambda at: at.bus.publish(BOX, key=HALF)),
    ("correlation_id", lambda at: at.bus.publish(BOX, correlation_id=7)),
    ("causation_id", lambda at: at.bus.publish(BOX, causation_id=[1])),
    ("message_id", lambda at: at.bus.publish(BOX, message_id=HALF)),
    ("timestamp", lambda at: at.bus.publish(BOX, timestamp="today")),
    ("timestamp", lambda at: at.bus.publish(BOX, timestamp=datetime(2030, 1, 1))),
    ("metadata", lambda at: at.bus.publish(BOX, metadata="x")),
    ("event 'BoxPacked'", lambda at: at.bus.publish(BoxPacked(object()))),
    ("event 'BoxPacked'", lambda at: at.bus.publish(BoxPacked(HALF))),
    ("events", lambda at: at.bus.publish_many(None)),  # type: ignore[arg-type]
    ("keys", lambda at: at.bus.publish_many([BOX], keys=3)),  # type: ignore[arg-type]
    ("group", lambda at: at.bus.on(BoxPacked, group=[])),  # type: ignore[arg-type]
    ("breaker", lambda at: at.bus.on(BoxPacked, group="g", breaker=True)),  # type: ignore[arg-type]
    ("start", lambda at: at.bus.on(BoxPacked, group="g", start="soon")),
    ("max_letters", lambda at: at.bus.dead_letters(max_letters=None)),  # type: ignore[arg-type]
    ("broker", lambda at: events.timeline(None, "c")),  # type: ignore[arg-type]
    ("correlation_id", lambda at: events.timeline(at.broker, HALF)),
    ("event_type", lambda at: events.registry.get([])),  # type: ignore[arg-type]
    ("version", lambda at: events.registry.get("BoxPacked", [])),  # type: ignore[arg-type]
    ("event_type", lambda at: events.registry.upcaster([], 1)),  # type: ignore[arg-type]
    ("CloudEvent", lambda at: events.Envelope.from_cloudevent({"id": HALF})),
    ("CloudEvent", lambda at: events.Envelope.from_cloudevent({**CLOUD_EVENT, "id": HALF})),
    ("PackBox", lambda at: at.commands.dispatch(PackBox(HALF))),
    ("database", lambda at: events.Inbox(at.broker.path / "no" / "such.db")),
    ("group", lambda at: events.Inbox(at.database, group=HALF)),
    ("clock", lambda at: events.Inbox(at.database, clock=True)),  # type: ignore[arg-type]
    ("message", lambda at: at.inbox.seen(HALF)),
    ("messages", lambda at: at.inbox.unseen(None)),  # type: ignore[arg-type]
    ("topic", lambda at: at.outbox.add(BOX, topic=object())),  # type: ignore[arg-type]
    ("key", lambda at: at.outbox.add(BOX, key=HALF)),
    ("name", lambda at: events.Outbox(at.database, name=HALF)),
    ("name", lambda at: events.Projector(at.store, Boxes(), name=3)),  # type: ignore[arg-type]
    ("timeout", lambda at: at.projector.wait_for(0, timeout=None)),  # type: ignore[arg-type]
    ("broker", lambda at: events.Sagas(None)),  # type: ignore[arg-type]
    ("awaits", lambda at: at.sagas.define("x", awaits=None)),  # type: ignore[arg-type]
    ("definition", lambda at: at.sagas.list(definition={})),  # type: ignore[arg-type]
    ("definition", lambda at: at.sagas.list(definition=HALF)),
    ("name", lambda at: at.store.delete_subscription(HALF)),
    ("name", lambda at: at.store.delete_subscription({})),  # type: ignore[arg-type]
    ("deliveries", lambda at: at.store.subscription("x").ack(None)),  # type: ignore[arg-type]
    ("limit", lambda at: at.store.subscription("x").parked(limit=math.inf)),  # type: ignore[arg-type]
    ("limit", lambda at: at.store.subscription("x").replay_parked(limit=-1)),
    ("saga_id", lambda at: at.sagas.signal(HALF, "go")),
    ("name", lambda at: at.sagas.signal("s", HALF)),
    ("event", lambda at: at.sagas.signal_event(3, "c")),  # type: ignore[arg-type]
    ("correlation_id", lambda at: at.sagas.signal_event(BOX, None)),  # type: ignore[arg-type]
    ("metadata", lambda at: at.store.append("s", BOX, metadata=3)),  # type: ignore[arg-type]
    ("metadata", lambda at: at.store.append("s", BOX, metadata={"user": HALF})),
    ("metadata", lambda at: at.store.append("s", BOX, metadata={"user": object()})),
    ("metadata", lambda at: at.commands.dispatch(PackBox(1), metadata=3)),
    ("tag", lambda at: at.store.append("s", BOX, tags=[HALF])),
    ("tags", lambda at: at.store.append("s", BOX, tags=[[]])),  # type: ignore[list-item]
    ("tags", lambda at: at.store.append_many({"s": ([BOX], events.ANY)}, tags=3)),  # type: ignore[arg-type]
    ("tag", lambda at: at.store.append_if(BOX, tags=[HALF], unless=events.Query(tags=["a"]))),
    ("tag", lambda at: events.Query(tags=[HALF])),
    ("type", lambda at: events.Query(types=[HALF])),
    ("category", lambda at: at.store.subscribe(category=HALF)),
    ("stream", lambda at: at.store.subscription("x", stream=HALF)),
    ("name", lambda at: at.store.subscription(HALF)),
    ("after", lambda at: at.store.subscription("x", after=1 << 63)),
    ("wait", lambda at: at.store.subscription("x").receive(wait="1")),  # type: ignore[arg-type]
    ("source", lambda at: events.EventBus(at.broker, source=HALF)),
    ("groups", lambda at: at.bus.start(groups="billing")),
    ("group", lambda at: at.bus.start(groups=[[]])),  # type: ignore[list-item]
    ("group", lambda at: at.bus.dead_letters(3)),  # type: ignore[arg-type]
    ("group", lambda at: at.bus.redrive(None)),  # type: ignore[arg-type]
    ("max_events", lambda at: at.bus.run_until_idle("1")),  # type: ignore[arg-type]
    ("timeout", lambda at: at.bus.drain(math.nan)),
    ("give_up_on", lambda at: events.Retry(give_up_on="x")),  # type: ignore[arg-type]
    ("function", lambda at: events.Retry().call(None)),  # type: ignore[arg-type]
    ("retry", lambda at: events.Projector(at.store, Boxes(), retry=3)),  # type: ignore[arg-type]
    ("clock", lambda at: events.Outbox(at.database, clock=3)),  # type: ignore[arg-type]
    ("clock", lambda at: events.RateLimit(1, clock=3)),  # type: ignore[arg-type]
    ("on_change", lambda at: events.CircuitBreaker(on_change=3)),  # type: ignore[arg-type]
    ("applies", lambda at: events.applies(BoxPacked)(3)),  # type: ignore[type-var]
    ("name", lambda at: at.sagas.define(HALF)),
    ("saga", lambda at: at.sagas.define("x")(int)),
    ("timeout", lambda at: at.sagas.start(at.sagas.define("x")(lambda saga: 1)).result(math.nan)),
    ("cls", lambda at: events.Envelope.wrap(BOX, "s").event(int)),  # type: ignore[arg-type]
    ("cls", lambda at: events.registry.register(None)),  # type: ignore[arg-type]
    ("old", lambda at: events.registry.check_compatibility(None, BoxPacked)),  # type: ignore[arg-type]
    ("upcaster", lambda at: events.registry.upcaster("X", 1)(3)),  # type: ignore[arg-type]
    ("version", lambda at: events.registry.upcasts("BoxPacked", None)),  # type: ignore[arg-type]
    ("data", lambda at: events.registry.decode("BoxPacked", 1, None)),  # type: ignore[arg-type]
    ("type", lambda at: type(events.Event)("X", (events.Event,), {}, type=HALF)),
    ("version", lambda at: type(events.Event)("X", (events.Event,), {}, version=1 << 40)),
    ("CloudEvent", lambda at: events.Envelope.from_cloudevent({**CLOUD_EVENT, "data": object()})),
    ("after", lambda at: at.store.subscribe(after=1 << 63)),
    ("after", lambda at: at.store.read_all(after=1 << 64)),
    ("after", lambda at: at.store.append_if(BOX, unless=events.Query(tags=["a"]), after=1 << 64)),
    ("from_version", lambda at: at.store.read("s", from_version=-1)),
    ("from_version", lambda at: at.store.read("s", from_version=1 << 64)),
    ("before_version", lambda at: at.store.truncate("s", 1 << 63)),
    ("max_count", lambda at: at.store.set_limits("s", max_count=1 << 63)),
    ("max_age", lambda at: at.store.set_limits("s", max_age=1e300)),
    ("limit", lambda at: at.store.read("s", limit=-(1 << 70))),
    ("timeout", lambda at: at.store.wait(0, 10**400)),
    ("timeout", lambda at: at.store.subscribe(timeout=10**400)),
    ("visibility_timeout", lambda at: at.store.subscription("x", visibility_timeout=10**400)),
    ("max_receives", lambda at: at.store.subscription("x", max_receives=1 << 64)),
    ("retry_delay", lambda at: at.store.subscription("x", retry_delay=math.nan)),
    ("max_messages", lambda at: at.store.subscription("x").receive(1 << 64)),
    ("wait", lambda at: at.store.subscription("x").receive(wait=10**400)),
    ("needs token", lambda at: at.bus.on(BoxPacked, group="g")(needs_token)),
    ("filter", lambda at: at.bus.on(BoxPacked, group="g", filter=needs_token)),
    ("needs token", lambda at: at.sagas.define("x")(needs_token)),
    ("needs token", lambda at: events.CommandBus(at.store).handler(PackBox)(needs_token)),
    ("needs token", lambda at: events.QueryBus().handler(PackBox)(needs_token)),
    ("handler", lambda at: events.QueryBus().handler(PackBox)(None)),  # type: ignore[type-var]
    ("measure", lambda at: Alerts(at.broker).add("x", [], above=1, callback=print)),  # type: ignore[arg-type]
    ("above", lambda at: Alerts(at.broker).add("x", "lag", above=math.nan, callback=print)),
    ("topics", lambda at: events.timeline(at.broker, "c", topics=3)),  # type: ignore[arg-type]
    ("topics", lambda at: events.timeline(at.broker, "c", topics="events")),
    ("clock", lambda at: events.Envelope.wrap(BOX, "s", clock=3)),  # type: ignore[arg-type]
    ("correlation_id", lambda at: at.commands.dispatch(PackBox(1), correlation_id=3)),
    ("causation_id", lambda at: at.commands.dispatch(PackBox(1), causation_id=[1])),
    ("timeout", lambda at: at.sagas.start(at.sagas.define("x")(lambda saga: 1)).result(10**400)),
]


@pytest.mark.parametrize("place", range(len(CALLS)), ids=[f"{place}-{name}" for place, (name, _) in enumerate(CALLS)])
def test_refused_by_name(given: Given, place: int) -> None:
    name, call = CALLS[place]
    with pytest.raises(PenstockError, match=name) as refused:
        call(given)
    assert isinstance(refused.value, (ValueError, TypeError))
    assert given.store.position == 0 and given.outbox.pending() == 0
    assert given.broker.topic("events").append(b"first").offset == 0


def test_a_limit_may_be_as_large_as_one_likes(given: Given) -> None:
    given.store.append("s-1", BOX)
    assert len(list(given.store.read("s-1", limit=1 << 64))) == 1
    assert len(list(given.store.read_all(limit=1 << 64))) == 1


def test_personal_fields_are_names() -> None:
    with pytest.raises(penstock.InvalidTypeError, match="personal of Wrong is 3"):

        class Wrong(events.Event, subject="a", personal=3):  # type: ignore[arg-type]
            a: str


@pytest.mark.parametrize("option", [{"name": 3}, {"name": HALF}, {"key": 3}, {"key": HALF}])
def test_a_step_with_a_bad_name_fails_its_saga_only(given: Given, option: dict[str, Any]) -> None:
    @given.sagas.define("named")
    def named(saga: Any, good: bool) -> Any:
        return saga.step(int, **({} if good else option))

    bad, good = given.sagas.start("named", False), given.sagas.start("named", True)
    given.sagas.run_until_idle()
    assert (bad.status, good.status) == ("failed", "completed")
    assert given.sagas.inspect(bad.saga_id).status == "failed"
    assert next(iter(option)) in str(given.sagas.inspect(bad.saga_id).reason)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda saga: saga.step(None), "function is None"),
        (lambda saga: saga.step(int, timeout=math.nan), "timeout is nan"),
        (lambda saga: saga.step(int, timeout=1 << 64), "timeout is 18446744073709551616"),
        (lambda saga: saga.publish(None), "event is None"),
        (lambda saga: saga.wait_for(HALF), "what is"),
    ],
)
def test_a_saga_that_calls_wrongly_fails(given: Given, call: Any, reason: str) -> None:
    given.sagas.define("wrong")(call)
    handle = given.sagas.start("wrong")
    given.sagas.run_until_idle()
    assert reason in str(given.sagas.inspect(handle.saga_id).reason)


class Counted(events.Event, type="CountedInTests"):
    number: int


class Named(events.Event, type="NamedInTests"):
    name: str


@pytest.mark.parametrize(
    "bad", [[Counted("seven")], [Counted(1), Named(2)], [Named("a"), Counted(None)], [Named(object())]]
)
def test_events_that_could_not_be_read_are_not_stored(broker: penstock.Broker, bad: list[events.Event]) -> None:
    store = events.EventStore(broker, "checked")
    with pytest.raises(events.InvalidEventError, match="InTests' is not valid"):
        store.append("s", bad)
    with pytest.raises(events.InvalidEventError, match="InTests' is not valid"):
        events.Envelope.wrap(bad[-1] if len(bad) > 1 else bad[0], "source")
    assert store.position == 0
