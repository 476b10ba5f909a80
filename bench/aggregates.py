"""Loading aggregates: beside the `eventsourcing` package on SQLite, with snapshots, and with personal data.

Run by `bench.events`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

import penstock
from bench.measure import Result
from penstock import events


class Deposited(events.Event, type="bench.Deposited"):
    cents: int
    note: str


class Told(events.Event, type="bench.Told", subject="customer", personal=("note",)):
    customer: str
    cents: int
    note: str


class Account(events.Aggregate):
    balance_cents: int = 0
    last_note: str = ""

    def deposit(self, cents: int, note: str) -> None:
        self.record(Deposited(cents, note))

    @events.applies(Deposited, Told)
    def _(self, event: Any) -> None:
        self.balance_cents += event.cents
        self.last_note = event.note


class Peer(Aggregate):
    """The same for `eventsourcing`."""

    def __init__(self) -> None:
        self.balance_cents = 0
        self.last_note = ""

    @event("Deposited")
    def deposit(self, cents: int, note: str) -> None:
        self.balance_cents += cents
        self.last_note = note


def microseconds(action: Callable[[], object], rounds: int) -> float:
    """Median of one call."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        taken.append((time.perf_counter() - started) * 1e6)
    return statistics.median(taken)


def filled_peer(directory: Path, count: int) -> tuple[Application[Any], Any]:
    """An application on an SQLite file, with an aggregate of so many events."""
    env = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(directory / "peer.sqlite3")}
    application: Application[Any] = Application(env=env)
    peer = Peer()
    for number in range(count - 1):
        peer.deposit(number, f"note {number}")
    application.save(peer)
    return application, peer.id


def filled_store(store: events.EventStore, count: int) -> None:
    """The same here; and beside it, an aggregate whose events lie far from each other."""
    account = Account("account-1")
    for number in range(count):
        account.deposit(number, f"note {number}")
    store.save(account)
    store.append("told-1", [Told("c", number, f"note {number}") for number in range(count)])
    for start in range(0, count, 10):
        some = {f"spread-{number}": Deposited(number, "x") for number in range(start, start + 10)}
        store.append_many({"spread": (list(some.values()), events.ANY)})
        store.append_many({stream: (one, events.ANY) for stream, one in some.items()})


def run(directory: Path, count: int, rounds: int) -> list[Result]:
    """Medians of `rounds`, both sides by turns."""
    application, peer_id = filled_peer(directory, count)
    with penstock.open(directory / "data", fsync="never") as broker:
        store = events.EventStore(broker, "bench")
        filled_store(store, count)
        assert store.load(Account, "account-1").balance_cents == sum(range(count))
        mine, others = [], []
        for _ in range(rounds):
            mine.append(microseconds(lambda: store.load(Account, "account-1"), 1))
            others.append(microseconds(lambda: application.repository.get(peer_id), 1))
        ours, theirs = statistics.median(mine), statistics.median(others)
        results = [
            Result(f"load {count:,} events (loads a second)", 1e6 / ours, 1e6 / theirs, "1/s", theirs / ours, 10)
        ]
        spread = microseconds(lambda: store.load(Account, "spread"), rounds)
        results.append(Result("the same, stored ten at a time among others", spread, theirs, "us", theirs / spread, 10))
        told = microseconds(lambda: store.load(Account, "told-1"), rounds)
        results.append(Result("the same, with personal data", told, theirs, "us", theirs / told, 1))
        store.snapshots.take(store.load(Account, "account-1"))
        snapshot = microseconds(lambda: store.load(Account, "account-1"), rounds * 10)
        results.append(Result("load with a snapshot", snapshot, 100, "us", snapshot / 100, 1, True))
    application.close()
    return results
