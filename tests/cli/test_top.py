"""`penstock top`, driven by textual's pilot on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.cli import top_rows

pytest.importorskip("textual")

from textual.widgets import DataTable, Input, Static

from penstock.cli.top_app import TopApp
from penstock.cli.top_screens import Details, Help, Messages

NEVER = 1e6  # seconds between two looks: the tests say when


class Driver:
    """The running application, and what can be read from its screen."""

    def __init__(self, app: TopApp, pilot: Any) -> None:
        self.app, self.pilot = app, pilot

    def column(self, table: str, number: int = 0) -> list[str]:
        widget = self.app.query_one(f"#table-{table}", DataTable)
        return [widget.get_row_at(row)[number].plain for row in range(widget.row_count)]

    def row(self, table: str, key: str) -> list[str]:
        return [cell.plain for cell in self.app.query_one(f"#table-{table}", DataTable).get_row(key)]

    def summary(self) -> str:
        return str(self.app.query_one("#summary", Static).render())

    def shown(self) -> str:
        """Everything on the screen on top."""
        lines = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in lines)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def look(self) -> None:
        await self.app.look()
        await self.pilot.pause()


def drive(broker: penstock.Broker, steps: Callable[[Driver], Awaitable[None]]) -> None:
    async def run() -> None:
        app = TopApp(broker, NEVER)
        async with app.run_test(size=(150, 40)) as pilot:
            await pilot.pause()
            await steps(Driver(app, pilot))

    asyncio.run(run())


@pytest.fixture
def clock() -> penstock.VirtualClock:
    return penstock.VirtualClock()


@pytest.fixture
def filled(tmp_path: Path, clock: penstock.VirtualClock) -> Any:
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        for name, count in (("alpha", 5), ("beta", 20), ("gamma", 10)):
            topic = broker.create_topic(name, partitions=2)
            for number in range(count):
                topic.append(b"body %d" % number, key=b"k", partition=number % 2)
        with broker.consumer("beta", group="slow") as consumer:
            assert len(consumer.poll(max_records=3)) == 3
        with broker.consumer("alpha", group="quick") as consumer:
            assert len(consumer.poll()) == 5
        queue = broker.queue("emails", max_receives=1)
        queue.send_many([b"hello", b"bad", b"third"])
        queue.send(b"later", delay=100)
        first, second = queue.receive(2)
        first.ack()
        second.nack()
        broker.share_consumer("gamma", "workers").receive(2)
        clock.advance(2)
        yield broker


def test_tables(filled: penstock.Broker, clock: penstock.VirtualClock) -> None:
    async def steps(top: Driver) -> None:
        assert top.column("Topics") == ["alpha", "beta", "emails", "gamma"], "no rates yet: by name"
        filled.topic("gamma").append(b"v" * 100)
        clock.advance(2)
        await top.look()
        assert top.column("Topics")[0] == "gamma", "the busiest first"
        assert top.row("Topics", "gamma")[:5] == ["gamma", "2", "11", top.row("Topics", "gamma")[3], "0.5"]
        assert "█" in top.row("Topics", "gamma")[5]
        assert "4 topics" in top.summary() and "lag 17" in top.summary() and "dead 1" in top.summary()
        await top.press("2")
        assert top.app.tab == "Groups"
        assert top.column("Groups") == ["slow", "quick"]
        slow = top.row("Groups", "slow")
        assert (slow[2], slow[4], slow[7]) == ("17", "4.0 s", "never")
        assert slow[8].startswith("beta-")
        await top.press("3")
        assert top.column("Queues") == ["gamma/workers", "emails"]
        assert top.row("Queues", "emails")[1:6] == ["1", top.row("Queues", "emails")[2], "0", "1", "1"]

    drive(filled, steps)


def test_messages_of_a_queue_that_was_deleted_do_not_make_it_again(filled: penstock.Broker) -> None:
    async def steps(top: Driver) -> None:
        await top.press("3", "down")
        filled.delete_queue("emails")
        await top.press("m")
        assert isinstance(top.app.screen, Messages) and "does not exist" in top.shown()
        assert "emails" not in filled.queues()

    drive(filled, steps)


def test_sorting_and_filtering(filled: penstock.Broker) -> None:
    async def steps(top: Driver) -> None:
        await top.press("S", "S")  # back from IN/s: RECORDS
        assert top.column("Topics") == ["beta", "gamma", "alpha", "emails"]
        await top.press("r")
        assert top.column("Topics") == ["emails", "alpha", "gamma", "beta"]
        await top.press("s", "s", "s")
        await top.press("slash")
        assert top.app.query_one("#filter", Input).has_focus
        await top.press("m", "m", "enter")
        assert top.column("Topics") == ["gamma"]
        assert "/mm" in top.summary()
        await top.press("escape")
        assert len(top.column("Topics")) == 4

    drive(filled, steps)


def test_the_chosen_row_stays_chosen(filled: penstock.Broker, clock: penstock.VirtualClock) -> None:
    async def steps(top: Driver) -> None:
        await top.press("down")
        assert top.app._chosen("Topics") == "beta"
        filled.topic("gamma").append(b"v")
        clock.advance(1)
        await top.look()
        assert top.column("Topics").index("beta") == 2
        assert top.app._chosen("Topics") == "beta"

    drive(filled, steps)


def test_details(filled: penstock.Broker) -> None:
    async def steps(top: Driver) -> None:
        await top.press("down", "enter")
        assert isinstance(top.app.screen, Details)
        shown = top.shown()
        assert "Topic beta" in shown and "PARTITION" in shown and "p99.9" in shown
        await top.press("escape")
        await top.press("2", "enter")
        assert "COMMITTED" in top.shown()
        await top.press("escape")
        await top.press("3", "down", "enter")
        shown = top.shown()
        assert "Queue emails" in shown and "dead lettered" in shown

    drive(filled, steps)


def test_messages(filled: penstock.Broker) -> None:
    before = filled.metrics()

    async def steps(top: Driver) -> None:
        await top.press("m")
        assert isinstance(top.app.screen, Messages)
        assert "body 4" in top.shown() and "alpha-0-2" in top.shown()
        await top.press("escape")
        await top.press("3", "down", "m")
        assert "third" in top.shown() and "later" not in top.shown()
        await top.press("right", "right")
        assert "later" in top.shown()
        await top.press("right")
        assert "bad" in top.shown() and "emails-0-1" in top.shown()
        await top.press("escape")
        await top.press("2", "m")
        assert "Messages of beta" in top.shown()

    drive(filled, steps)
    after = filled.metrics()
    assert after.topics["alpha"].records_read == before.topics["alpha"].records_read
    assert after.queues == before.queues, "nothing was disturbed"


def test_hold(filled: penstock.Broker, clock: penstock.VirtualClock) -> None:
    async def steps(top: Driver) -> None:
        await top.press("space")
        assert "HELD" in top.summary()
        filled.create_topic("delta")
        clock.advance(1)
        await top.look()
        assert "delta" not in top.column("Topics")
        await top.press("space")
        await top.look()
        assert "delta" in top.column("Topics") and "HELD" not in top.summary()

    drive(filled, steps)


def test_help_and_quitting(filled: penstock.Broker) -> None:
    async def steps(top: Driver) -> None:
        await top.press("question_mark")
        assert isinstance(top.app.screen, Help)
        assert "hold everything" in top.shown()
        await top.press("q")
        assert not isinstance(top.app.screen, Help)
        await top.press("q")
        assert top.app._exit

    drive(filled, steps)


def test_an_empty_directory(tmp_path: Path) -> None:
    async def steps(top: Driver) -> None:
        await top.press("enter", "m", "s", "r", "2", "enter", "m", "3")
        assert top.column("Queues") == []
        assert "0 topics" in top.summary()

    with penstock.open(tmp_path / "data") as broker:
        drive(broker, steps)


def test_it_ends_when_the_broker_is_closed(tmp_path: Path) -> None:
    async def steps(top: Driver) -> None:
        broker.close()
        await top.look()
        assert top.app._exit

    broker = penstock.open(tmp_path / "data")
    drive(broker, steps)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00085, "850 µs"), (0.012, "12 ms"), (3.44, "3.4 s"), (75, "1 min 15 s"), (7500, "2 h 05 min"),
     (100_000, "1 d 03 h"), (float("inf"), "never")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert top_rows.duration(seconds) == text


def test_numbers_and_sparklines() -> None:
    assert [top_rows.count(n) for n in (0, 999, 12_345, 4_500_000)] == ["0", "999", "12.3 k", "4.5 M"]
    assert [top_rows.rate(n) for n in (0, 0.25, 123, 1e6)] == ["·", "0.2", "123", "1.0 M"]
    assert top_rows.sparkline([0, 1, 4, 8]).strip() == "▁▁▄█"
    assert len(top_rows.sparkline([])) == len(top_rows.sparkline([1.0] * 16)) == 16
