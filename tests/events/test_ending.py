"""Ending what runs: from inside of it, at once after it began, by a second signal, and only what one began oneself."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import events


class Ending(events.Event, type="test.Ending"):
    number: int


class Nothing(events.Projection):
    @events.applies(Ending)
    def _(self, db: Any, event: Ending) -> None:
        """No effect."""


@pytest.fixture
def bus(broker: penstock.Broker) -> Iterator[events.EventBus]:
    with events.EventBus(broker) as made:
        yield made


def in_time(action: Callable[[], Any]) -> None:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it hangs"


@pytest.mark.parametrize("call", ["stop", "close"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_bus_is_ended_in_a_handler(bus: events.EventBus, call: str, is_async: bool) -> None:
    def handle(event: Ending) -> None:
        getattr(bus, call)()

    async def handle_async(event: Ending) -> None:
        handle(event)

    bus.on(Ending, group="g")(handle_async if is_async else handle)
    bus.publish(Ending(1))
    in_time(bus.run)
    in_time(bus.close)


def test_a_projector_is_ended_at_once(broker: penstock.Broker) -> None:
    with events.Projector(events.EventStore(broker, "shop"), Nothing(), {}) as projector:
        for _ in range(50):
            projector.start()
            in_time(projector.stop)


def test_sagas_are_stopped_in_a_step_and_not_closed(broker: penstock.Broker) -> None:
    with events.Sagas(broker, partitions=1) as sagas:

        def ends() -> str:
            sagas.stop()
            try:
                sagas.close()
            except events.SagaStateError as error:
                return str(error)
            return "closed"

        sagas.define("ends")(lambda saga: saga.step(ends))
        handle = sagas.start("ends")
        in_time(sagas.run)
        assert "in one of their steps" in handle.result(0)


def test_run_of_what_runs_leaves_it_running(broker: penstock.Broker, bus: events.EventBus) -> None:
    done = threading.Event()
    bus.on(Ending, group="g")(lambda event: done.set())
    bus.start()
    with pytest.raises(penstock.InvalidConfigError, match="runs already"):
        bus.run()
    bus.publish(Ending(1))
    assert done.wait(20)
    with events.Sagas(broker, partitions=1) as sagas:
        sagas.define("short")(lambda saga: "done")
        sagas.start_background(1)
        with pytest.raises(events.SagaStateError):
            sagas.run()
        assert sagas.start("short").result(20) == "done"


def test_a_saga_that_waits_for_its_definition_goes_on_with_it(broker: penstock.Broker) -> None:
    with events.Sagas(broker, partitions=1) as elsewhere, events.Sagas(broker) as sagas:
        elsewhere.define("late")(lambda saga: "done")
        sagas.define("early")(lambda saga: "done")
        sagas.start_background(1)
        handle = elsewhere.start("late")
        assert sagas.start("early").result(20) == "done", "so the one before it was looked at"
        sagas.define("late")(lambda saga: "done")
        assert handle.result(20) == "done"


PROGRAM = """
import sys, time, penstock
from penstock import events
class Ending(events.Event, type="test.Ending"):
    number: int
def hangs(*_):
    print("begun", flush=True)
    while True:
        time.sleep(60)
with penstock.open(sys.argv[1]) as broker:
    if sys.argv[2] == "bus":
        with events.EventBus(broker) as bus:
            bus.on(Ending, group="g")(hangs)
            bus.publish(Ending(1))
            bus.run()
    else:
        with events.Sagas(broker) as sagas:
            sagas.define("hangs")(lambda saga: saga.step(hangs))
            sagas.start("hangs")
            sagas.run()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("what", ["bus", "sagas"])
def test_a_second_signal_ends_what_does_not_listen(tmp_path: Path, what: str, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "data"), what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)  # it waits for the handler
        process.send_signal(number)
        assert process.wait(20) != 0
