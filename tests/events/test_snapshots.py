"""Snapshots: a state that is used only where replaying all events would give the same."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import penstock
from penstock import events


class Added(events.Event, type="test.Added"):
    item: str
    count: int


class Line(msgspec.Struct):
    item: str
    count: int


class Cart(events.Aggregate, snapshot_every=5):
    lines: dict[str, Line] = msgspec.field(default_factory=dict)
    seen: set[str] = msgspec.field(default_factory=set)
    total: int = 0

    def add(self, item: str, count: int) -> None:
        self.record(Added(item, count))

    @events.applies(Added)
    def _(self, event: Added) -> None:
        line = self.lines.setdefault(event.item, Line(event.item, 0))
        line.count += event.count
        self.seen.add(event.item)
        self.total += event.count


@pytest.fixture
def store(tmp_path: Path) -> Iterator[events.EventStore]:
    with penstock.open(tmp_path / "data") as broker:
        yield events.EventStore(broker, "shop")


def fill(store: events.EventStore, count: int, stream: str = "cart-1", each: int = 1000) -> Cart:
    cart = store.load(Cart, stream)
    for number in range(count):
        cart.add(f"i{number % 3}", number)
        if number % each == each - 1:
            store.save(cart)
    store.save(cart)
    return cart


def version_of(store: events.EventStore, stream: str = "cart-1", cls: type[events.Aggregate] = Cart) -> int | None:
    info = store.snapshots.info(cls, stream)
    return info.version if info is not None and info.usable else None


def test_every_n_events(store: events.EventStore) -> None:
    cart = store.load(Cart, "cart-1")
    taken = []
    for number in range(12):
        cart.add("x", number)
        store.save(cart)
        taken.append(version_of(store))
    assert taken == [None] * 4 + [4] * 5 + [9] * 3
    for _ in range(12):
        cart.add("x", 1)
    store.save(cart)
    assert version_of(store) == 23, "one save of many events takes one snapshot, at its end"


def test_the_state_is_the_same_with_and_without(store: events.EventStore) -> None:
    fill(store, 12)
    assert version_of(store) == 11
    one, two = store.load(Cart, "cart-1"), store.load(Cart, "cart-1", snapshots=False)
    assert vars(one) == vars(two) and one.version == two.version == 11
    assert isinstance(one.lines["i1"], Line) and isinstance(one.seen, set)


def test_it_is_used(store: events.EventStore, tmp_path: Path) -> None:
    fill(store, 12)
    with sqlite3.connect(tmp_path / "data" / "shop.snapshots.sqlite3") as connection:
        connection.execute("UPDATE snapshots SET state = CAST(replace(state, '66', '67') AS BLOB)")
    connection.close()
    assert store.load(Cart, "cart-1").total == 67
    assert store.load(Cart, "cart-1", snapshots=False).total == 66
    assert store.load(Cart, "cart-1", version=10).total == 55, "older than the snapshot"
    assert store.load(Cart, "cart-1", version=11).total == 67
    info = store.snapshots.rebuild(Cart, "cart-1")
    assert info is not None and info.version == 11 and store.load(Cart, "cart-1").total == 66


def test_policy_of_the_call(store: events.EventStore) -> None:
    cart = store.load(Cart, "cart-1")
    cart.add("x", 1)
    store.save(cart, snapshot_every=1)
    assert version_of(store) == 0
    with pytest.raises(penstock.InvalidArgumentError):
        store.save(cart, snapshot_every=0)


def test_another_schema_is_not_used(store: events.EventStore) -> None:
    def with_version(version: int, kind: Any = int) -> type[events.Aggregate]:
        class Total(events.Aggregate, snapshot_version=version):
            total: kind = 0

            @events.applies(Added)
            def _(self, event: Added) -> None:
                self.total += event.count * version

        Total.__annotations__ = {"total": kind}
        return Total

    fill(store, 3)
    first, second, typed = with_version(1), with_version(2), with_version(1, float)
    store.snapshots.take(store.load(first, "cart-1"))
    assert version_of(store, cls=first) == 2
    for other in (second, typed):
        info = store.snapshots.info(other, "cart-1")
        assert info is not None and not info.usable
    assert vars(store.load(second, "cart-1")) == {"total": 6}


def test_states_that_cannot_be_written_are_refused_before_anything_is_stored(store: events.EventStore) -> None:
    class Loose(events.Aggregate, snapshot_every=1):
        @events.applies(Added)
        def _(self, event: Added) -> None:
            self.extra = event.count

    class Odd(events.Aggregate, snapshot_every=1):
        value: object = None

        @events.applies(Added)
        def _(self, event: Added) -> None:
            self.value = object()

    for cls in (Loose, Odd):
        one = cls("l-1")
        one.record(Added("x", 1))
        with pytest.raises(penstock.InvalidTypeError, match=r"extra|cannot be written"):
            store.save(one)
    assert store.position == 0


def test_only_stored_events(store: events.EventStore) -> None:
    cart = fill(store, 2)
    cart.add("y", 1)
    with pytest.raises(penstock.InvalidArgumentError, match="pending=1"):
        store.snapshots.take(cart)
    with pytest.raises(penstock.InvalidArgumentError):
        store.snapshots.take(Cart("new"))


def test_deleting(store: events.EventStore) -> None:
    for stream in ("cart-1", "cart-2", "cart-3"):
        fill(store, 5, stream)
    assert store.snapshots.delete("cart-1") == 1 and store.snapshots.delete("cart-1") == 0
    assert (version_of(store), version_of(store, "cart-2")) == (None, 4)
    assert store.snapshots.delete() == 2
    assert store.load(Cart, "cart-2").total == 10


def test_truncated_streams_load_from_their_snapshot(store: events.EventStore) -> None:
    fill(store, 5)
    store.truncate("cart-1", 5)
    assert store.load(Cart, "cart-1").total == 10
    fill(store, 2)
    assert store.load(Cart, "cart-1").total == 11
    assert store.load(Cart, "cart-1", snapshots=False).total == 1, "what is there"


def test_a_deleted_stream_begins_anew(store: events.EventStore) -> None:
    fill(store, 5)
    store.delete("cart-1")
    assert store.load(Cart, "cart-1").version == -1
    cart = fill(store, 1)
    assert cart.version == 5
    assert store.load(Cart, "cart-1").seen == {"i0"}
    assert version_of(store) is None


def test_a_snapshot_of_events_that_are_not_there_is_not_used(store: events.EventStore, tmp_path: Path) -> None:
    """As after a power cut that took the log's end and left the snapshot."""
    fill(store, 5)
    other = events.EventStore(store.broker, "other")
    cart = Cart("cart-1")
    cart.add("z", 1)
    other.save(cart)
    files = [tmp_path / "data" / f"{name}.snapshots.sqlite3" for name in ("shop", "other")]
    store.snapshots._file.close()
    for suffix in ("", "-wal", "-shm"):
        source = files[0].with_name(files[0].name + suffix)
        if source.exists():
            files[1].with_name(files[1].name + suffix).write_bytes(source.read_bytes())
    assert version_of(other) == 4
    loaded = other.load(Cart, "cart-1")
    assert (loaded.version, loaded.total) == (0, 1)
    assert version_of(other) is None, "it is not tried again"
    assert fill(other, 9).version == 9


def test_it_is_gone_for_the_events_of_another_history(store: events.EventStore) -> None:
    fill(store, 5)
    with store.snapshots._file._file.writing() as connection:
        connection.execute("UPDATE snapshots SET message_id = 'other'")
    assert store.load(Cart, "cart-1").total == 10
    assert version_of(store) is None


def test_processes_share_them(store: events.EventStore) -> None:
    fill(store, 5)
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            cart = store.load(Cart, "cart-1")
            cart.add("c", 1)
            store.save(cart, snapshot_every=1)
            os.write(writes, b"%d" % cart.version)
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.close(writes)
    assert os.read(reads, 10) == b"5"
    os.close(reads)
    os.waitpid(child, 0)
    assert version_of(store) == 5
    assert store.load(Cart, "cart-1").total == 11


class SnapshotModel(RuleBasedStateMachine):
    """Loading with snapshots, at any version, gives what replaying from zero gives."""

    @initialize(directory=st.builds(lambda: None))
    def begin(self, directory: None) -> None:
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.broker = penstock.open(self.directory.name, fsync="never")
        self.store = events.EventStore(self.broker, "shop")
        self.model: list[tuple[str, int]] = []
        self.truncated = 0
        self.held: list[Cart] = []

    @rule(items=st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 5)), max_size=7), every=st.integers(1, 6))
    def save(self, items: list[tuple[str, int]], every: int) -> None:
        cart = self.store.load(Cart, "cart-1")
        for item, count in items:
            cart.add(item, count)
        self.store.save(cart, snapshot_every=every)
        self.model += items

    @rule()
    def hold(self) -> None:
        self.held.append(self.store.load(Cart, "cart-1"))

    @rule(which=st.integers(0, 5))
    def save_what_was_held(self, which: int) -> None:
        if which < len(self.held):
            cart = self.held.pop(which)
            cart.add("h", 1)
            if cart.stored_version == len(self.model) - 1:
                self.store.save(cart)
                self.model.append(("h", 1))
            else:
                with pytest.raises(penstock.ConcurrencyError):
                    self.store.save(cart)

    @rule(which=st.integers(0, 5))
    def snapshot_of_what_was_held(self, which: int) -> None:
        if which < len(self.held) and self.held[which].stored_version >= 0:
            self.store.snapshots.take(self.held[which])

    @rule(every=st.booleans())
    def delete(self, every: bool) -> None:
        self.store.snapshots.delete(None if every else "cart-1")

    @rule()
    def rebuild(self) -> None:
        self.store.snapshots.rebuild(Cart, "cart-1")

    @rule()
    def reopen(self) -> None:
        self.broker.close()
        self.broker = penstock.open(self.directory.name, fsync="never")
        self.store = events.EventStore(self.broker, "shop")

    @rule(back=st.integers(0, 20))
    def at_a_version(self, back: int) -> None:
        version = len(self.model) - 1 - back
        if version >= 0:
            self.compare(self.store.load(Cart, "cart-1", version=version), self.model[: version + 1])

    @invariant()
    def same_as_from_zero(self) -> None:
        self.compare(self.store.load(Cart, "cart-1"), self.model)

    def compare(self, cart: Cart, items: list[tuple[str, int]]) -> None:
        assert cart.version == len(items) - 1
        sums: dict[str, int] = {}
        for item, count in items:
            sums[item] = sums.get(item, 0) + count
        assert {name: line.count for name, line in cart.lines.items()} == sums
        assert (cart.seen, cart.total) == (set(sums), sum(sums.values()))

    def teardown(self) -> None:
        self.broker.close()
        self.directory.cleanup()


TestSnapshotModel = SnapshotModel.TestCase
TestSnapshotModel.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
