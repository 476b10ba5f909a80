"""Event patterns: publishing, handling, inbox, projection, commands, outbox; run by `bench.events`."""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import penstock
from bench.measure import Result
from penstock import events
from penstock.events.message_id import new_message_id


class BenchPlaced(events.Event):
    """What is published."""

    order_id: str
    total_cents: int


class PlaceBench(events.Command):
    """What is dispatched."""

    order_id: str


class BenchOrders(events.Projection):
    """One row an event."""

    def setup(self, db: Any) -> None:
        db.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, total INTEGER) WITHOUT ROWID")

    @events.applies(BenchPlaced)
    def _(self, db: Any, event: BenchPlaced) -> None:
        db.execute("INSERT INTO orders VALUES (?, ?)", (event.order_id, event.total_cents))


def timed(action: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


class EventPatterns:
    """The measurements; each in a broker of its own."""

    def __init__(self, directory: Path, count: int, rounds: int, ids: int) -> None:
        self.directory, self.count, self.rounds, self.ids = directory, count, rounds, ids
        self.events = [BenchPlaced(f"o-{number:08}", number) for number in range(count)]
        self.number = 0

    def run(self) -> list[Result]:
        """All bars."""
        rate = self._rate
        found = [
            rate("bus: publish_many", 100_000, self._publish),
            rate("bus: handle, one group, one thread", 50_000, lambda: self._handle(ordered=True)),
            rate("bus: handle, batch handler", 50_000, lambda: self._handle(ordered=True, batch=True)),
            rate("bus: handle, async handler", 20_000, lambda: self._handle(ordered=True, is_async=True)),
            rate("bus: handle, idempotent=True", 10_000, lambda: self._handle(ordered=True, idempotent=True)),
            rate("projection into SQLite, exactly once", 100_000, self._project),
            rate("projection into a dict", 100_000, self._project_memory),
            rate("commands with idempotency key", 2_000, self._commands),
            rate("outbox: add and relay", 20_000, self._outbox),
        ]
        return found + self._inbox()

    def _rate(self, name: str, bar: float, measure: Callable[[], float]) -> Result:
        """`measure` gives seconds for `count` events (or a part of them, as it says)."""
        middle = statistics.median(measure() for _ in range(self.rounds))
        return Result(name, middle, bar, "1/s", middle / bar, 1.0)

    def _broker(self) -> penstock.Broker:
        self.number += 1
        return penstock.open(self.directory / f"data{self.number}", fsync="never")

    def _publish(self) -> float:
        with self._broker() as broker, events.EventBus(broker, "bench") as bus:
            return self.count / timed(lambda: bus.publish_many(self.events, keys=lambda event: event.order_id))

    def _handle(self, *, is_async: bool = False, **options: Any) -> float:
        with self._broker() as broker, events.EventBus(broker, "bench") as bus:
            seen = [0]

            def handle(event: Any) -> None:
                seen[0] += len(event) if options.get("batch") else 1

            async def handle_async(event: Any) -> None:
                seen[0] += 1

            bus.on(BenchPlaced, group="g", **options)(handle_async if is_async else handle)
            bus.publish_many(self.events, keys=lambda event: event.order_id)
            took = timed(bus.run_until_idle)
            assert seen[0] == self.count
            return self.count / took

    def _filled(self, broker: penstock.Broker) -> events.EventStore:
        store = events.EventStore(broker, "shop")
        for first in range(0, self.count, 1000):
            store.append(f"order-{first}", self.events[first : first + 1000])
        return store

    def _project(self) -> float:
        with self._broker() as broker:
            store = self._filled(broker)
            path = self.directory / f"model{self.number}.db"
            with events.Projector(store, BenchOrders(), path) as projector:
                took = timed(projector.run_once)
            connection = sqlite3.connect(path)
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (self.count,)
            connection.close()
            return self.count / took

    def _project_memory(self) -> float:
        class Totals(events.Projection):
            @events.applies(BenchPlaced)
            def _(self, db: Any, event: BenchPlaced) -> None:
                db[event.order_id] = event.total_cents

        model: dict[str, int] = {}
        with self._broker() as broker:
            took = timed(events.Projector(self._filled(broker), Totals(), model).run_once)
            assert len(model) == self.count
            return self.count / took

    def _commands(self) -> float:
        count = max(1, self.count // 50)
        with self._broker() as broker:
            store = events.EventStore(broker, "shop")
            commands = events.CommandBus(store)

            @commands.handler(PlaceBench)
            def place(command: PlaceBench) -> events.AppendResult:
                return store.append(f"order-{command.order_id}", BenchPlaced(command.order_id, 1), events.NO_STREAM)

            def dispatch() -> None:
                for number in range(count):
                    commands.dispatch(PlaceBench(str(number)), idempotency_key=f"k{number}")

            return count / timed(dispatch)

    def _outbox(self) -> float:
        with self._broker() as broker:
            broker.create_topic("events")
            with events.Outbox(self.directory / f"app{self.number}.db") as outbox:

                def action() -> None:
                    outbox.connection.execute("BEGIN")
                    for event in self.events:
                        outbox.add(event, key=event.order_id)
                    outbox.connection.execute("COMMIT")
                    assert outbox.relay(broker, batch_size=5000) == self.count

                return self.count / timed(action)

    # --- inbox -----------------------------------------------------------------------------------------------------

    def _inbox(self) -> list[Result]:
        """Microseconds a message: the check alone, and a loop that handles messages beside one without an inbox."""
        with events.Inbox(self.directory / "inbox.db", group="g") as inbox:
            self._fill_inbox(inbox)
            inbox.connection.execute("CREATE TABLE effects (number INTEGER PRIMARY KEY, text TEXT)")
            known, new = self._ids(self.count // 10), self._ids(self.count // 10)
            inbox.remember(*known)
            envelopes = [events.Envelope.wrap(BenchPlaced("o", 1), "bench", message_id=one) for one in known + new]
            micros = {
                "seen, of a new message": self._micros(new, lambda ids: [inbox.seen(one) for one in ids]),
                "seen, of a known message": self._micros(known, lambda ids: [inbox.seen(one) for one in ids]),
                "unseen, half of a batch known": self._micros(envelopes, inbox.unseen),
            }
            alone = self._loops(inbox, alone=True)
            plain, once = self._loops(inbox, alone=False)
        micros["once in an open transaction, less the effect"] = once - plain
        what = f"inbox with {self.ids:,} ids: "
        checks = [Result(what + name, each, 5.0, "us", each / 5.0, 1.0, True) for name, each in micros.items()]
        ratio = alone[1] / alone[0]
        return [*checks, Result(what + "a consumer's loop / without", alone[1], alone[0], "us", ratio, 2.0, True)]

    def _ids(self, count: int) -> list[str]:
        return [new_message_id() for _ in range(count)]

    def _micros(self, given: list[Any], action: Callable[[Any], Any]) -> float:
        return statistics.median(timed(lambda: action(given)) for _ in range(self.rounds)) / len(given) * 1e6

    def _loops(self, inbox: events.Inbox, alone: bool) -> tuple[float, float]:
        """One effect a message, in a transaction each or all in one: without an inbox, and with it."""
        execute = inbox.connection.execute
        effect = "INSERT INTO effects (text) VALUES ('x')"

        def plain(ids: list[str]) -> None:
            for _ in ids:
                if alone:
                    execute("BEGIN IMMEDIATE")
                execute(effect)
                if alone:
                    execute("COMMIT")

        def once(ids: list[str]) -> None:
            for one in ids:
                with inbox.once(one) as first:
                    assert first
                    execute(effect)

        def both() -> tuple[float, ...]:
            took = []
            for loop in (plain, once):
                ids = self._ids(self.count // 20)
                if not alone:
                    execute("BEGIN IMMEDIATE")
                took.append(timed(lambda loop=loop, ids=ids: loop(ids)) / len(ids) * 1e6)
                if not alone:
                    execute("COMMIT")
            return tuple(took)

        without, with_it = zip(*(both() for _ in range(self.rounds)), strict=True)
        return statistics.median(without), statistics.median(with_it)

    def _fill_inbox(self, inbox: events.Inbox) -> None:
        now = time.time_ns() // 1_000_000
        first = now - self.ids // 1000
        rows = (
            (1, (first + number // 1000).to_bytes(6, "big") + b"\x70" + os.urandom(9), first + number // 1000)
            for number in range(self.ids)
        )
        inbox.connection.execute("BEGIN")
        inbox.connection.executemany("INSERT OR IGNORE INTO penstock_inbox VALUES (?, ?, ?)", rows)
        inbox.connection.execute("COMMIT")
