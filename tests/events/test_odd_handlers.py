"""Functions that are not what they seem: coroutines of plain ones, generators, cancelled, exiting, calling back."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import VirtualClock, events

ONCE = events.Retry(max_attempts=1)


class OddCalled(events.Event):
    number: int


class OddAsked(events.Command):
    number: int


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", fsync="never", clock=VirtualClock()) as opened:
        yield opened


@pytest.fixture
def bus(broker: penstock.Broker) -> Iterator[events.EventBus]:
    with events.EventBus(broker) as made:
        yield made


def in_time(action: Callable[[], Any]) -> Any:
    """The action's result, by a thread that must not hang."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(action()), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it hangs"
    return found[0] if found else None


# --- what would never run is refused ---------------------------------------------------------------------------------


def generator(*given: Any) -> Any:
    yield given


async def async_generator(*given: Any) -> Any:
    yield given


async def coroutine(*given: Any) -> Any:
    return given


class Callable_:
    async def __call__(self, saga: Any) -> None:
        """As an async function."""


@pytest.mark.parametrize("function", [generator, async_generator])
def test_generators_are_no_handlers(broker: penstock.Broker, bus: events.EventBus, function: Any) -> None:
    store, sagas = events.EventStore(broker, "shop"), events.Sagas(broker)
    for decorator in (
        bus.on(OddCalled, group="g"),
        sagas.define("odd"),
        events.CommandBus(store).handler(OddAsked),
        events.QueryBus().handler(OddAsked),
        events.applies(OddCalled),
    ):
        with pytest.raises(penstock.InvalidTypeError, match="never run"):
            decorator(function)
    assert bus.groups == []


def test_nobody_awaits_what_applies_events(broker: penstock.Broker) -> None:
    with pytest.raises(penstock.InvalidTypeError, match="async"):
        events.applies(OddCalled)(coroutine)

    class Prepared(events.Projection):
        async def setup(self, db: Any) -> None:
            """Never awaited."""

    with pytest.raises(penstock.InvalidTypeError, match=r"setup.*async"):
        events.Projector(events.EventStore(broker, "shop"), Prepared(), {})


@pytest.mark.parametrize("function", [coroutine, functools.partial(coroutine, 1), Callable_()])
def test_a_saga_is_not_async(broker: penstock.Broker, function: Any) -> None:
    with pytest.raises(penstock.InvalidTypeError, match="not async"):
        events.Sagas(broker).define("odd")(function)


# --- coroutines of functions that are not async ----------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"batch": True}, {"copies": "subscriber", "start": "earliest"}], ids=str)
def test_a_bus_awaits_what_a_plain_handler_returns(bus: events.EventBus, options: dict[str, Any]) -> None:
    done: list[Any] = []

    async def handle(given: Any) -> None:
        await asyncio.sleep(0)
        done.append(given[0].number if isinstance(given, list) else given.number)

    bus.on(OddCalled, group="g", **options)(lambda event: handle(event))
    bus.publish(OddCalled(1))
    assert bus.run_until_idle() == 1 and done == [1] and bus.dead_letters() == []


def test_commands_do_not_lose_a_coroutine(broker: penstock.Broker) -> None:
    store = events.EventStore(broker, "shop")
    commands = events.CommandBus(store)

    async def ask(command: OddAsked) -> int:
        return store.append("odd-1", OddCalled(command.number)).version

    commands.handler(OddAsked)(lambda command: ask(command))
    with pytest.raises(penstock.InvalidConfigError, match="dispatch_async"):
        commands.dispatch(OddAsked(1))
    assert store.version("odd-1") == -1
    assert asyncio.run(commands.dispatch_async(OddAsked(1))) == 0 and store.version("odd-1") == 0


# --- cancelled, and exits --------------------------------------------------------------------------------------------


def cancelled(*_: Any) -> None:
    raise asyncio.CancelledError("of somebody else")


async def waits_for_a_cancelled_task(*_: Any) -> None:
    task = asyncio.get_running_loop().create_task(asyncio.sleep(60))
    task.cancel()
    await task


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("function", [cancelled, waits_for_a_cancelled_task])
def test_a_cancelled_handler_failed(bus: events.EventBus, function: Any, batch: bool) -> None:
    bus.on(OddCalled, group="g", retry=ONCE, batch=batch)(function)
    bus.publish(OddCalled(1))
    assert in_time(bus.run_until_idle) == 1
    (letter,) = bus.dead_letters()
    assert "what the handler waited for was cancelled" in letter.error


@pytest.mark.parametrize("function", [cancelled, waits_for_a_cancelled_task])
def test_a_cancelled_step_failed(broker: penstock.Broker, function: Any) -> None:
    with events.Sagas(broker, partitions=1) as sagas:
        sagas.define("odd")(lambda saga: saga.step(function))
        handle = sagas.start("odd")
        in_time(sagas.run_until_idle)
        with pytest.raises(events.SagaFailedError, match=r"ancelled"):
            handle.result(0)


def test_a_cancelled_saga_function_failed(broker: penstock.Broker) -> None:
    with events.Sagas(broker, partitions=1) as sagas:
        sagas.define("odd")(cancelled)
        handle = sagas.start("odd")
        sagas.run_until_idle()
        assert handle.status == "failed"


async def exits(*_: Any) -> None:
    raise SystemExit("enough")


def test_an_async_handler_that_exits_ends_the_bus_and_hangs_nobody(bus: events.EventBus) -> None:
    bus.on(OddCalled, group="g")(exits)
    bus.publish(OddCalled(1))
    with pytest.raises(SystemExit, match="enough"):
        bus.run_until_idle()
    bus.start()
    in_time(bus.join)
    with pytest.raises(SystemExit, match="enough"):
        bus.stop()


def test_an_async_step_that_exits_ends_the_run_and_hangs_nobody(broker: penstock.Broker) -> None:
    with events.Sagas(broker, partitions=1) as sagas:
        sagas.define("odd")(lambda saga: saga.step(exits))
        sagas.start("odd")
        with pytest.raises(SystemExit, match="enough"):
            sagas.run_until_idle()


# --- handlers that call back -----------------------------------------------------------------------------------------


def test_a_subscriber_may_run_the_bus_in_its_handler(bus: events.EventBus) -> None:
    done: list[int] = []

    @bus.on(OddCalled, group="g", copies="subscriber")
    def handle(event: OddCalled) -> None:
        if event.number < 3:
            bus.publish(OddCalled(event.number + 1))
        assert bus.run_until_idle() == 0, "those behind it wait for it"
        done.append(event.number)

    bus.publish(OddCalled(1))
    assert in_time(bus.run_until_idle) == 3 and done == [1, 2, 3]


def test_an_async_handler_cannot_wait_for_its_own_loop(bus: events.EventBus) -> None:
    @bus.on(OddCalled, group="g", retry=ONCE)
    async def handle(event: OddCalled) -> None:
        bus.publish(OddCalled(event.number + 1))
        bus.run_until_idle()

    bus.publish(OddCalled(1))
    in_time(lambda: bus.run_until_idle(max_events=1))
    assert "do this in a thread" in bus.dead_letters()[0].error
