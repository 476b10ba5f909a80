"""The event store beside the package `eventsourcing` on SQLite; few streams and many. Run by `bench.events`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import penstock
from bench.endurance import private_mib
from bench.measure import Result, Side, versus
from penstock import events

BATCH = 100
CATEGORY_STREAMS = 1000


class OrderPlaced(events.Event, type="BenchOrderPlaced"):
    """What is appended: some fields, as an order has."""

    order_id: str
    customer_id: str
    total_cents: int
    currency: str


def placed(number: int) -> OrderPlaced:
    """An event of its own."""
    return OrderPlaced(f"order-{number}", f"customer-{number % 1000}", number, "EUR")


@contextlib.contextmanager
def new_store(directory: Path, prefix: str) -> Iterator[events.EventStore]:
    """A store in a new directory, which goes afterwards."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
    with penstock.open(path) as broker:
        yield events.EventStore(broker, "shop")
    shutil.rmtree(path)


def appending(directory: Path, count: int, batch: int) -> Side:
    """Typed events (made before), `batch` an append with the expected version, to 10 streams in turn."""

    @contextlib.contextmanager
    def side() -> Iterator[Callable[[], int]]:
        with new_store(directory, "append") as store:
            parts = [[placed(start + number) for number in range(batch)] for start in range(0, count, batch)]

            def action() -> int:
                version = -1
                for number, part in enumerate(parts):
                    expected: Any = events.NO_STREAM if version < 0 else version
                    last = store.append(f"order-{number % 10}", part, expected).version
                    if number % 10 == 9:
                        version = last
                return store.position

            yield action

    return side


class Peer:
    """`eventsourcing`: its event store over SQLite in a file, JSON, its own event classes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.persistence = importlib.import_module("eventsourcing.persistence")
        self.sqlite = importlib.import_module("eventsourcing.sqlite")
        domain = importlib.import_module("eventsourcing.domain")
        self.event = _event_class(domain)

    @contextlib.contextmanager
    def store(self, recorder: str = "SQLiteApplicationRecorder") -> Iterator[Any]:
        """A new store in a file (WAL, which is what the package sets)."""
        path = Path(tempfile.mkdtemp(prefix="peer", dir=self.directory))
        transcoder = self.persistence.JSONTranscoder()
        for part in ("UUIDAsHex", "DatetimeAsISO"):
            transcoder.register(getattr(self.persistence, part)())
        datastore = self.sqlite.SQLiteDatastore(str(path / "peer.db"))
        made = getattr(self.sqlite, recorder)(datastore)
        made.create_table()
        yield self.persistence.EventStore(self.persistence.Mapper(transcoder), made)
        datastore.close()
        shutil.rmtree(path)

    def events(self, originator: Any, first: int, start: int, count: int) -> list[Any]:
        """Events of one originator, from version `first` on."""
        return [
            self.event(
                originator, first + number, datetime.now(UTC), f"order-{start + number}",
                f"customer-{(start + number) % 1000}", start + number, "EUR",
            )
            for number in range(count)
        ]  # fmt: skip

    def appending(self, count: int, batch: int, recorder: str) -> Side:
        """The same as `appending` above."""

        @contextlib.contextmanager
        def side() -> Iterator[Callable[[], int]]:
            with self.store(recorder) as store:
                originators = [uuid4() for _ in range(10)]
                parts = [
                    self.events(originators[number % 10], number // 10 * batch + 1, number * batch, batch)
                    for number in range(count // batch)
                ]

                def action() -> int:
                    for part in parts:
                        store.put(part)
                    return count

                yield action

        return side

    def loading(self, count: int) -> Side:
        """Read an originator's events, again and again."""

        @contextlib.contextmanager
        def side() -> Iterator[Callable[[], int]]:
            with self.store() as store:
                originator = uuid4()
                store.put(self.events(originator, 1, 0, count))
                yield lambda: sum(len(list(store.get(originator))) for _ in range(5))

        return side


def _event_class(domain: Any) -> Any:
    """A frozen dataclass of the package's kind, of a module, as its topics need."""
    from dataclasses import make_dataclass

    fields = [("order_id", str), ("customer_id", str), ("total_cents", int), ("currency", str)]
    made = make_dataclass("PeerPlaced", fields, bases=(domain.DomainEvent,), frozen=True)
    made.__module__ = __name__
    globals()["PeerPlaced"] = made
    return made


def loading(directory: Path, count: int, batch: int) -> Side:
    """Read a stream of `count` events, typed, again and again; other streams lie in between."""

    @contextlib.contextmanager
    def side() -> Iterator[Callable[[], int]]:
        with new_store(directory, "load") as store:
            for start in range(0, count, batch):
                for stream in ("order-1", "other-1"):
                    store.append(stream, [placed(start + number) for number in range(batch)])

            def action() -> int:
                seen = 0
                for _ in range(20):
                    seen += len([event.event for event in store.read("order-1")])
                return seen

            yield action

    return side


def streams_once(store: events.EventStore, first: int, count: int) -> None:
    """One event in each of `count` new streams."""
    for start in range(first, first + count, 100):
        store.append_many(
            {f"cart-{number}": ([placed(number)], events.NO_STREAM) for number in range(start, start + 100)}
        )


class ManyStreams:
    """One event a stream: opening, appending and loading with few streams and with many."""

    def __init__(self, directory: Path, sizes: list[int]) -> None:
        self.path = directory / "many"
        self.sizes = sizes

    def run(self) -> list[Result]:
        """Costs at each size over those at the first one."""
        costs, before = [], 0
        for size in self.sizes:
            with penstock.open(self.path) as broker:
                store = events.EventStore(broker, "shop")
                started = time.perf_counter()
                streams_once(store, before, size - before)
                took = time.perf_counter() - started
            print(f"{size:,} streams: built in {took:.0f} s, {_size_mib(self.path):,.0f} MiB", flush=True)
            before = size
            costs.append(self._costs(size))
        shutil.rmtree(self.path)
        first, last = costs[0], costs[-1]
        size = self.sizes[-1]
        found = [Result(f"open a store of {size:,} streams", last["open"], 1, "s", last["open"], 1.0, True)]
        for name in ("append to a new stream", "append to a stream", "load a stream"):
            label = f"{name}, {size:,} streams / {self.sizes[0]:,}"
            found.append(Result(label, last[name], first[name], "us", last[name] / first[name], 2.0, True))
        found.append(Result("private memory of the store", last["memory"], 64, "MiB", last["memory"], 64, True))
        return found

    def _costs(self, size: int) -> dict[str, float]:
        before = private_mib()
        with penstock.open(self.path) as broker:
            started = time.perf_counter()
            store = events.EventStore(broker, "shop")
            store.version("cart-0")
            opened = time.perf_counter() - started
            chosen = random.Random(1)
            picks = [chosen.randrange(size) for _ in range(3000)]
            costs = {
                "open": opened,
                "load a stream": _each(lambda n: [event.event for event in store.read(f"cart-{picks[n]}")]),
                "append to a stream": _each(
                    lambda n: store.append(f"cart-{picks[-n]}", placed(n), events.STREAM_EXISTS)
                ),
                "append to a new stream": _each(lambda n: store.append(f"new-{size}-{n}", placed(n), events.NO_STREAM)),
            }
            costs["memory"] = private_mib() - before
        return costs


def _each(action: Callable[[int], Any]) -> float:
    """Median microseconds of an action, over numbers that it gets."""
    for number in range(500):
        action(number)
    costs = []
    for number in range(500, 2500):
        started = time.perf_counter()
        action(number)
        costs.append(time.perf_counter() - started)
    return statistics.median(costs) * 1e6


def _size_mib(path: Path) -> float:
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file()) / (1 << 20)


def run(directory: Path, count: int, rounds: int, sizes: list[int]) -> list[Result]:
    """All measurements."""
    found = []
    if importlib.util.find_spec("eventsourcing") is None:
        print("eventsourcing: not installed")
    else:
        peer = Peer(directory)
        name = f"append typed events, batches of {BATCH}, expected version / eventsourcing"
        for recorder in ("SQLiteApplicationRecorder", "SQLiteAggregateRecorder"):
            sides = appending(directory, count, BATCH), peer.appending(count // 10, BATCH, recorder)
            found.append(versus(f"{name} {recorder}", *sides, 20, rounds, "events/s"))
        sides = appending(directory, count // 20, 1), peer.appending(count // 100, 1, "SQLiteApplicationRecorder")
        found.append(versus("append typed events one by one / eventsourcing", *sides, 10, rounds, "events/s"))
        for batch in (100, 1):
            sides = loading(directory, 1000, batch), peer.loading(1000)
            label = f"load 1,000 events that were appended by {batch} / eventsourcing"
            found.append(versus(label, *sides, 10, rounds, "events/s"))
    return found + ManyStreams(directory, sizes).run()
