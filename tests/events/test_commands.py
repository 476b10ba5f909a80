"""Commands and queries: validation, idempotency over processes and deaths, optimistic retry, atomic effects."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from children import run

import penstock
from penstock import InvalidArgumentError, InvalidConfigError, InvalidTypeError, events


class OpenTab(events.Command):
    tab: str
    guests: Annotated[int, msgspec.Meta(ge=1)]


class Pay(msgspec.Struct):
    tab: str
    cents: int


class TabOpened(events.Event):
    guests: int


class TabPaid(events.Event):
    cents: int


class Receipt(msgspec.Struct):
    tab: str
    cents: int


@pytest.fixture
def store(tmp_path: Path) -> Iterator[events.EventStore]:
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        yield events.EventStore(broker, "tabs")


@pytest.fixture
def commands(store: events.EventStore) -> events.CommandBus:
    bus = events.CommandBus(store)

    @bus.handler(OpenTab)
    def open_tab(command: OpenTab) -> events.AppendResult:
        return store.append(f"tab-{command.tab}", TabOpened(command.guests), expected_version=events.NO_STREAM)

    @bus.handler(Pay)
    def pay(command: Pay, store: events.EventStore) -> Receipt:
        store.append(f"tab-{command.tab}", TabPaid(command.cents), expected_version=events.STREAM_EXISTS)
        if command.cents < 0:
            raise ValueError("refused")
        return Receipt(command.tab, command.cents)

    return bus


def stored(store: events.EventStore, stream: str) -> list[str]:
    return [event.type for event in store.read(stream)]


def test_a_command_is_handled(commands: events.CommandBus, store: events.EventStore) -> None:
    assert commands.dispatch(OpenTab("a", 2)) == (0, 1)
    assert commands.dispatch(Pay("a", 500)) == Receipt("a", 500)
    assert stored(store, "tab-a") == ["TabOpened", "TabPaid"]


def test_what_fails_stores_nothing(commands: events.CommandBus, store: events.EventStore) -> None:
    commands.dispatch(OpenTab("a", 2))
    with pytest.raises(ValueError, match="refused"):
        commands.dispatch(Pay("a", -1), idempotency_key="k")
    with pytest.raises(penstock.ConcurrencyError):
        commands.dispatch(Pay("nobody", 1))
    assert stored(store, "tab-a") == ["TabOpened"] and store.position == 1
    assert commands.dispatch(Pay("a", 1), idempotency_key="k") == Receipt("a", 1), "a key of what failed is free"


def test_a_key_has_its_effects_once(commands: events.CommandBus, store: events.EventStore) -> None:
    commands.dispatch(OpenTab("a", 2), idempotency_key="open")
    first = commands.dispatch(Pay("a", 500), idempotency_key="pay")
    again = commands.dispatch(Pay("a", 500), idempotency_key="pay")
    assert first == again == Receipt("a", 500) and isinstance(again, Receipt)
    assert commands.dispatch(OpenTab("a", 2), idempotency_key="open") == events.AppendResult(0, 2)
    assert stored(store, "tab-a") == ["TabOpened", "TabPaid"]
    with pytest.raises(InvalidArgumentError, match="another command"):
        commands.dispatch(Pay("a", 501), idempotency_key="pay")
    other = events.CommandBus(events.EventStore(store.broker, "tabs"))
    other.handler(Pay)(lambda command: pytest.fail("it was handled again"))
    assert other.dispatch(Pay("a", 500), idempotency_key="pay") == {"tab": "a", "cents": 500}


def test_rivals_with_one_key(store: events.EventStore) -> None:
    calls: list[int] = []
    both = threading.Barrier(2, timeout=20)
    results: list[Any] = []

    def dispatch() -> None:
        mine = events.EventStore(store.broker, "tabs")
        bus = events.CommandBus(mine)

        @bus.handler(Pay)
        def pay(command: Pay) -> int:
            calls.append(1)
            if len(calls) <= 2:
                both.wait()
            mine.append("tab-a", TabPaid(command.cents))
            return len(calls)

        results.append(bus.dispatch(Pay("a", 5), idempotency_key="k"))

    threads = [threading.Thread(target=dispatch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 2 and results[0] == results[1]
    assert stored(store, "tab-a") == ["TabPaid"]


def test_conflicts_are_tried_again(store: events.EventStore) -> None:
    bus = events.CommandBus(store)
    rival = events.EventStore(store.broker, "tabs")
    seen: list[int] = []

    @bus.handler(Pay)
    def pay(command: Pay) -> int:
        version = store.version("tab-a")
        seen.append(version)
        if len(seen) < 3:
            rival.append("tab-a", TabPaid(1))
        store.append("tab-a", TabPaid(command.cents), expected_version=version if version >= 0 else events.NO_STREAM)
        return version

    assert bus.dispatch(Pay("a", 7)) == 1 and seen == [-1, 0, 1]
    assert [event.data["cents"] for event in store.read("tab-a")] == [1, 1, 7]

    always = events.CommandBus(store, retry=events.Retry(max_attempts=2, delay=0))

    @always.handler(Pay)
    def never(command: Pay) -> None:
        rival.append("tab-a", TabPaid(1))
        store.append("tab-a", TabPaid(2), expected_version=0)

    with pytest.raises(penstock.ConcurrencyError):
        always.dispatch(Pay("a", 7))


def test_all_appends_of_a_handler_are_one(store: events.EventStore) -> None:
    class Tab(events.Aggregate):
        cents = 0

        def pay(self, cents: int) -> None:
            self.record(TabPaid(cents))

        @events.applies(TabPaid)
        def _(self, event: TabPaid) -> None:
            self.cents += event.cents

    bus = events.CommandBus(store)
    fails = True

    @bus.handler(Pay)
    def pay(command: Pay) -> events.AppendResult:
        tab = store.load(Tab, "tab-a")
        tab.pay(command.cents)
        store.save(tab)
        tab.pay(1)
        result = store.save(tab)
        store.append("log", TabPaid(command.cents))
        if fails:
            raise OSError("died")
        assert store.position == 0, "nothing is stored before the end"
        return result

    with pytest.raises(OSError, match="died"):
        bus.dispatch(Pay("a", 10), idempotency_key="k")
    assert store.position == 0
    fails = False
    result = bus.dispatch(Pay("a", 10), idempotency_key="k")
    assert result == (1, 3) and store.load(Tab, "tab-a").cents == 11 and stored(store, "log") == ["TabPaid"]


def test_events_are_caused_by_the_command(commands: events.CommandBus, store: events.EventStore) -> None:
    cause = events.Envelope.wrap(TabOpened(1), "x", metadata={"userId": "u"})
    with events.handling(cause):
        commands.dispatch(OpenTab("a", 2), idempotency_key="k")
    handled, opened = store.read_all()
    assert handled.type == "penstock.CommandHandled" and handled.stream == "$command-k"
    assert opened.correlation_id == handled.correlation_id == cause.message_id
    assert opened.causation_id == handled.causation_id != cause.message_id
    assert opened.metadata["userId"] == "u"
    commands.dispatch(Pay("a", 1), correlation_id="mine", metadata={"userId": "v"})
    (paid,) = store.read("tab-a", 1)
    assert (paid.correlation_id, paid.metadata["userId"]) == ("mine", "v")


def test_async_handlers(store: events.EventStore) -> None:
    bus = events.CommandBus(store)

    @bus.handler(Pay)
    async def pay(command: Pay) -> int:
        await asyncio.sleep(0)
        store.append("tab-a", TabPaid(command.cents))
        return command.cents

    async def main() -> tuple[Any, Any]:
        with pytest.raises(InvalidConfigError, match="dispatch_async"):
            bus.dispatch(Pay("a", 1))
        return await asyncio.gather(*(bus.dispatch_async(Pay("a", 2), idempotency_key="k") for _ in range(2)))

    assert bus.dispatch(Pay("a", 1)) == 1
    assert asyncio.run(main()) == [2, 2]
    assert [event.data["cents"] for event in store.read("tab-a")] == [1, 2]


def test_a_command_in_a_command_is_a_part_of_it(commands: events.CommandBus, store: events.EventStore) -> None:
    class Both(events.Command):
        fails: bool

    @commands.handler(Both)
    def both(command: Both) -> None:
        commands.dispatch(OpenTab("a", 1), idempotency_key="inner")
        commands.dispatch(OpenTab("b", 1))
        if command.fails:
            raise ValueError("outer")

    with pytest.raises(ValueError, match="outer"):
        commands.dispatch(Both(True))
    assert store.position == 0
    commands.dispatch(Both(False))
    assert stored(store, "tab-a") == stored(store, "tab-b") == ["TabOpened"]
    assert commands.dispatch(OpenTab("a", 1), idempotency_key="inner") is not None


@pytest.mark.parametrize(
    ("command", "message"),
    [(OpenTab("a", 0), ">= 1"), (OpenTab(3, 1), "str"), (Pay("a", "5"), "cents")],  # type: ignore[arg-type]
)
def test_commands_are_validated(commands: events.CommandBus, command: Any, message: str) -> None:
    with pytest.raises(events.InvalidCommandError, match=message):
        commands.dispatch(command)


def test_bad_calls(commands: events.CommandBus, store: events.EventStore) -> None:
    with pytest.raises(events.UnknownCommandError, match="Receipt has no handler"):
        commands.dispatch(Receipt("a", 1))
    with pytest.raises(InvalidConfigError, match="Pay has a handler"):
        commands.handler(Pay)(print)
    with pytest.raises(InvalidArgumentError, match="idempotency_key"):
        commands.dispatch(Pay("a", 1), idempotency_key="")
    with pytest.raises(InvalidArgumentError, match="colour"):
        commands.dispatch(Pay("a", 1), colour="red")
    with pytest.raises(InvalidTypeError, match="EventStore"):
        events.CommandBus(3)  # type: ignore[arg-type]

    class Odd(events.Command):
        pass

    commands.handler(Odd)(lambda command: (_ for _ in ()))
    with pytest.raises(InvalidTypeError, match="JSON cannot hold"):
        commands.dispatch(Odd(), idempotency_key="odd")
    assert store.position == 0


DISPATCHER = """
import os, sys, penstock
from penstock import events
class Pay(events.Command):
    tab: str
    cents: int
class TabPaid(events.Event):
    cents: int
with penstock.open(sys.argv[1]) as broker:
    store = events.EventStore(broker, "tabs")
    commands = events.CommandBus(store)
    @commands.handler(Pay)
    def pay(command) -> int:
        store.append("tab-a", TabPaid(command.cents))
        if sys.argv[2] == "middle":
            os.kill(os.getpid(), 9)
        store.append("tab-b", TabPaid(command.cents))
        return command.cents
    print(commands.dispatch(Pay("a", 5), idempotency_key="k"), flush=True)
    if sys.argv[2] == "end":
        os.kill(os.getpid(), 9)
"""


def test_deaths_do_not_double_effects(tmp_path: Path) -> None:
    path = tmp_path / "data"
    for when, code, out in (("middle", -9, ""), ("end", -9, "5\n"), ("never", 0, "5\n")):
        done = run(DISPATCHER, path, when, text=True)
        assert (done.returncode, done.stdout) == (code, out), done.stderr
    with penstock.open(path) as broker:
        store = events.EventStore(broker, "tabs")
        assert stored(store, "tab-a") == stored(store, "tab-b") == ["TabPaid"]


def test_queries(store: events.EventStore) -> None:
    @dataclass
    class CentsOf:
        tab: str

    class Never(events.Command):
        pass

    class Totals(events.Projection):
        @events.applies(TabPaid)
        def _(self, db: dict[str, int], event: TabPaid, envelope: events.Envelope) -> None:
            db["a"] = db.get("a", 0) + event.cents

    model: dict[str, int] = {}
    projector = events.Projector(store, Totals(), model)
    queries = events.QueryBus()
    queries.handler(CentsOf, projector=projector)(lambda query: model.get(query.tab, 0))

    @queries.handler(Never)
    async def never(query: Never) -> str:
        return "never"

    assert queries.ask(CentsOf("a")) == 0
    with projector:
        projector.start()
        position = store.append("tab-a", TabPaid(5)).position
        assert queries.ask(CentsOf("a"), after=position, timeout=20) == 5
        assert asyncio.run(queries.ask_async(CentsOf("a"), after=position, timeout=20)) == 5
        with pytest.raises(TimeoutError):
            queries.ask(CentsOf("a"), after=position + 1, timeout=0.01)
    assert asyncio.run(queries.ask_async(Never())) == "never"
    with pytest.raises(InvalidConfigError, match="ask_async"):
        queries.ask(Never())
    with pytest.raises(InvalidConfigError, match="no projector"):
        asyncio.run(queries.ask_async(Never(), after=1))
    with pytest.raises(penstock.ClosedError):
        queries.ask(CentsOf("a"), after=position)
    with pytest.raises(events.UnknownCommandError):
        queries.ask(OpenTab("a", 1))
    with pytest.raises(events.InvalidCommandError):
        queries.ask(CentsOf(3))  # type: ignore[arg-type]


def test_a_key_goes_with_dicts_of_numbers(store: events.EventStore) -> None:
    class Count(events.Command):
        items: dict[int, int]

    commands = events.CommandBus(store)
    commands.handler(Count)(lambda command: sum(command.items.values()))
    assert commands.dispatch(Count({1: 2, 0: 3}), idempotency_key="k") == 5
    assert commands.dispatch(Count({0: 3, 1: 2}), idempotency_key="k") == 5
    with pytest.raises(InvalidArgumentError, match="other"):
        commands.dispatch(Count({0: 3, 1: 1}), idempotency_key="k")


def test_a_key_whose_stream_somebody_else_wrote_to(store: events.EventStore, commands: events.CommandBus) -> None:
    store.append("$command-k", TabOpened(1))
    with pytest.raises(InvalidArgumentError, match="other events"):
        commands.dispatch(OpenTab("7", 1), idempotency_key="k")
    assert store.version("tab-7") == -1
