"""Scenarios and captured events: what they check, and that they fail when it does not hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import InvalidTypeError, VirtualClock, events
from penstock.testing import AggregateScenario, CapturedEvents, ProjectionScenario, SagaScenario, Scenario


class DoorOpened(events.Event):
    by: str


class DoorShut(events.Event):
    by: str


class Door(events.Aggregate):
    is_open = False

    def open(self, by: str) -> str:
        if self.is_open:
            raise ValueError("it is open")
        self.record(DoorOpened(by))
        return f"opened by {by}"

    @events.applies(DoorOpened)
    def _(self, event: DoorOpened) -> None:
        self.is_open = True

    @events.applies(DoorShut)
    def _(self, event: DoorShut) -> None:
        self.is_open = False


class Visitors(events.Projection):
    def setup(self, db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE visitors (name TEXT)")

    @events.applies(DoorOpened)
    def _(self, db: sqlite3.Connection, event: DoorOpened) -> None:
        db.execute("INSERT INTO visitors VALUES (?)", (event.by,))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", fsync="never", clock=VirtualClock()) as opened:
        yield opened


def test_an_aggregate() -> None:
    scenario = AggregateScenario(Door)
    scenario.given(DoorOpened("ann"), DoorShut("ann")).when("open", "bob").then(DoorOpened("bob"))
    scenario.then_returns("opened by bob").then_state(is_open=True)
    with pytest.raises(AssertionError, match="expected the state"):
        scenario.then_state(is_open=False)
    with pytest.raises(AssertionError, match="expected the events"):
        scenario.then()
    refused = AggregateScenario(Door).given(DoorOpened("ann")).when(lambda door: door.open("bob"))
    refused.then_raises(ValueError, match="it is open").then()
    with pytest.raises(AssertionError, match="expected KeyError, got None"):
        refused.then_raises(KeyError)
    with pytest.raises(ValueError, match="it is open"):
        AggregateScenario(Door).given(DoorOpened("ann")).when("open", "bob").then(DoorOpened("bob"))


def test_commands(broker: penstock.Broker) -> None:
    class OpenDoor(events.Command):
        by: str

    store = events.EventStore(broker, "doors")
    commands = events.CommandBus(store)

    @commands.handler(OpenDoor)
    def handle(command: OpenDoor) -> None:
        door = store.load(Door, "door-1")
        door.open(command.by)
        store.save(door)

    scenario = Scenario(store).given("door-1", DoorOpened("ann"), DoorShut("ann"))
    scenario.when(commands.dispatch, OpenDoor("bob"), idempotency_key="k").then(DoorOpened("bob")).then_returns(None)
    scenario.when(commands.dispatch, OpenDoor("eve")).then_raises(ValueError, match="open")
    with pytest.raises(AssertionError, match="expected the events"):
        scenario.then()


def test_a_projection(broker: penstock.Broker) -> None:
    scenario = ProjectionScenario(broker, Visitors())
    scenario.given(DoorOpened("ann"), DoorShut("ann")).when(DoorOpened("bob"))
    scenario.then_rows("SELECT name FROM visitors ORDER BY name", ("ann",), ("bob",))
    scenario.then(lambda db: db.execute("SELECT count(*) FROM visitors").fetchone() == (2,))
    with pytest.raises(AssertionError, match="expected the rows"):
        scenario.then_rows("SELECT name FROM visitors")
    with pytest.raises(AssertionError, match="the check"):
        scenario.then(lambda db: False)
    scenario.close()


def test_sagas(broker: penstock.Broker, tmp_path: Path) -> None:
    sagas = events.Sagas(broker)

    @sagas.define("visit")
    def visit(saga: events.Saga, name: str) -> Any:
        saga.step(lambda: name, name="ring")
        return saga.wait_for("opened", timeout=60)

    scenario = SagaScenario(sagas)
    with pytest.raises(InvalidTypeError, match="when_started"):
        scenario.then_status("running")
    scenario.when_started("visit", "ann").then_status("waiting").when_signalled("opened", {"by": "bob"})
    scenario.then_status("completed").then_result({"by": "bob"})
    with pytest.raises(AssertionError, match="expected the result"):
        scenario.then_result(None)
    scenario.when_started("visit", "eve", saga_id="late").when_time_passes(61)
    with pytest.raises(AssertionError, match="expected the status"):
        scenario.then_status("waiting")
    with pytest.raises(AssertionError, match="expected the result 'yes', got SagaFailedError"):
        scenario.then_result("yes")
    scenario.when_started("visit", "dan", saga_id="waits")
    with pytest.raises(AssertionError, match="expected the result 'yes', got SagaTimeoutError"):
        scenario.then_result("yes")
    with penstock.open(tmp_path / "real", fsync="never") as real:
        with pytest.raises(InvalidTypeError, match="VirtualClock"):
            SagaScenario(events.Sagas(real))


def test_captured_events(broker: penstock.Broker) -> None:
    store = events.EventStore(broker, "doors")
    with events.EventBus(broker, "house") as bus:
        bus.publish(DoorOpened("before"))
        captured = CapturedEvents(broker)
        only = CapturedEvents(broker, "doors")
        assert captured == [] and len(captured) == 0
        bus.publish(DoorOpened("ann"))
        store.append("door-1", DoorShut("ann"))
        broker.topic("events").append(b"no event")
    assert captured == [DoorShut("ann"), DoorOpened("ann")] and only == [DoorShut("ann")]
    assert captured.of(DoorOpened) == [DoorOpened("ann")] and DoorShut("ann") in captured
    assert captured[0] == DoorShut("ann") and [envelope.source for envelope in captured.envelopes] == ["doors", "house"]
    captured.clear()
    assert list(captured) == [] and "[]" in repr(captured)
    with pytest.raises(InvalidTypeError, match="broker is 3"):
        CapturedEvents(3)  # type: ignore[arg-type]
