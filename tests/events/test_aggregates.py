"""Aggregates: state from events, saving with expected versions, time travel."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

import penstock
from penstock import events


class Deposited(events.Event, type="test.Deposited"):
    cents: int


class Withdrawn(events.Event, type="test.Withdrawn"):
    cents: int


class Renamed(events.Event, type="test.Renamed"):
    name: str


class Account(events.Aggregate):
    balance_cents: int = 0
    notes: list[str] = []  # noqa: RUF012

    def deposit(self, cents: int) -> None:
        self.record(Deposited(cents))

    def withdraw(self, cents: int) -> None:
        if cents > self.balance_cents:
            raise ValueError("not enough")
        self.record(Withdrawn(cents))

    @events.applies(Deposited)
    def _(self, event: Deposited) -> None:
        self.balance_cents += event.cents
        self.notes.append(f"+{event.cents}")

    @events.applies(Withdrawn)
    def _(self, event: Withdrawn) -> None:
        self.balance_cents -= event.cents
        self.notes.append(f"-{event.cents}")


class Tolerant(events.Aggregate, unknown_events="ignore"):
    cents: int = 0

    @events.applies(Deposited)
    def _(self, event: Deposited) -> None:
        self.cents += event.cents


@pytest.fixture
def clock() -> penstock.VirtualClock:
    return penstock.VirtualClock(1_700_000_000_000)


@pytest.fixture
def store(tmp_path: Path, clock: penstock.VirtualClock) -> Iterator[events.EventStore]:
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        yield events.EventStore(broker, "shop")


def test_contract(store: events.EventStore) -> None:
    account = store.load(Account, "account-1")
    assert (account.id, account.version, account.balance_cents) == ("account-1", -1, 0)
    account.deposit(500)
    assert (account.version, account.pending, account.stored_version) == (0, (Deposited(500),), -1)
    assert store.save(account) == (0, 1)
    assert account.pending == ()
    account.deposit(20)
    account.withdraw(70)
    assert store.save(account) == (2, 3)
    again = store.load(Account, "account-1")
    assert (again.version, again.balance_cents, again.notes) == (2, 450, ["+500", "+20", "-70"])
    assert [event.event for event in store.read("account-1")] == [Deposited(500), Deposited(20), Withdrawn(70)]


def test_nothing_recorded_saves_nothing(store: events.EventStore) -> None:
    account = Account("account-1")
    assert store.save(account) == (-1, 0)
    account.deposit(1)
    store.save(account)
    assert store.save(account) == (0, 1)
    assert store.position == 1


def test_a_conflict_carries_the_actual_version_and_keeps_what_was_recorded(store: events.EventStore) -> None:
    first, second = Account("a-1"), Account("a-1")
    first.deposit(1)
    first.deposit(2)
    second.deposit(3)
    store.save(first)
    with pytest.raises(penstock.ConcurrencyError) as caught:
        store.save(second)
    assert caught.value.actual_version == 1
    assert second.pending == (Deposited(3),)
    fresh = store.load(Account, "a-1")
    fresh.deposit(3)
    store.save(fresh)
    assert store.load(Account, "a-1").balance_cents == 6


def test_saved_over_the_events_of_others_it_has_to_be_loaded_again(store: events.EventStore) -> None:
    mine, other = Account("a-1"), Account("a-1")
    other.deposit(10)
    store.save(other)
    mine.deposit(1)
    assert store.save(mine, expected_version=events.ANY, snapshot_every=1) == (1, 2)
    assert store.snapshots.info(Account, "a-1") is None, "its state is not that of the stream"
    with pytest.raises(penstock.InvalidArgumentError):
        store.snapshots.take(mine)
    mine.deposit(1)
    with pytest.raises(penstock.ConcurrencyError):
        store.save(mine)
    assert store.load(Account, "a-1").balance_cents == 11


def test_several_aggregates_all_or_none(store: events.EventStore) -> None:
    one, two = Account("a-1"), Account("a-2")
    one.deposit(5)
    two.deposit(6)
    idle = Account("a-3")
    assert store.save_all([one, idle, two]) == [(0, 1), (-1, 2), (0, 2)]
    one.deposit(1)
    stale = Account("a-2")
    stale.deposit(1)
    with pytest.raises(penstock.ConcurrencyError):
        store.save_all([one, stale])
    assert store.version("a-1") == 0
    with pytest.raises(penstock.InvalidArgumentError, match="twice"):
        store.save_all([one, one])


def test_an_invariant_is_checked_before_anything_is_recorded(store: events.EventStore) -> None:
    account = Account("a-1")
    account.deposit(5)
    with pytest.raises(ValueError, match="not enough"):
        account.withdraw(6)
    assert account.pending == (Deposited(5),)
    store.save(account)
    assert store.load(Account, "a-1").balance_cents == 5


def test_what_applying_raises_is_not_recorded() -> None:
    class Strict(events.Aggregate):
        @events.applies(Deposited)
        def _(self, event: Deposited) -> None:
            raise ValueError("no")

    strict = Strict("s")
    with pytest.raises(ValueError, match="no"):
        strict.record(Deposited(1))
    assert (strict.pending, strict.version) == ((), -1)


def test_state_as_of_a_version(store: events.EventStore) -> None:
    account = Account("a-1")
    for cents in (1, 2, 4):
        account.deposit(cents)
    store.save(account)
    assert [store.load(Account, "a-1", version=version).balance_cents for version in range(3)] == [1, 3, 7]
    with pytest.raises(penstock.InvalidArgumentError, match="up to 2"):
        store.load(Account, "a-1", version=3)
    old = store.load(Account, "a-1", version=1)
    old.deposit(1)
    with pytest.raises(penstock.ConcurrencyError):
        store.save(old)


def test_state_as_of_a_time(store: events.EventStore, clock: penstock.VirtualClock) -> None:
    account = Account("a-1")
    begin_ms = clock.time_ms()
    for cents in (1, 2, 4):
        account.deposit(cents)
        store.save(account)
        clock.advance(10)
    balances = [
        store.load(Account, "a-1", as_of=begin_ms + ms).balance_cents for ms in (-1, 0, 9_999, 10_000, 20_000, 90_000)
    ]
    assert balances == [0, 1, 1, 3, 7, 7]
    at = datetime.fromtimestamp(begin_ms / 1000 + 10, UTC)
    assert store.load(Account, "a-1", as_of=at).version == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((events.Aggregate, "a"), TypeError),
        ((dict, "a"), TypeError),
        ((Account, ""), TypeError),
        ((Account, "a", -1), ValueError),
        ((Account, "a", True), ValueError),
        ((Account, "a", 1, 1), ValueError),
        ((Account, "a", None, "now"), TypeError),
        ((Account, "a", None, datetime(2026, 1, 1)), ValueError),
    ],
)
def test_bad_arguments_of_load(store: events.EventStore, arguments: tuple[object, ...], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        store.load(*arguments)  # type: ignore[arg-type]
    assert isinstance(caught.value, penstock.PenstockError)


def test_unknown_events_are_an_error_or_ignored_by_choice(store: events.EventStore) -> None:
    store.append("a-1", [Deposited(5), Renamed("x"), Deposited(6)])
    with pytest.raises(events.UnknownEventTypeError, match=r"Account .* test\.Renamed"):
        store.load(Account, "a-1")
    tolerant = store.load(Tolerant, "a-1")
    assert (tolerant.cents, tolerant.version) == (11, 2)
    with pytest.raises(events.UnknownEventTypeError):
        Account("b").record(Renamed("x"))
    other = Tolerant("b")
    other.record(Renamed("x"))
    assert store.save(other).version == 0


def test_events_of_no_class_at_all(store: events.EventStore) -> None:
    known = events.Envelope.wrap(Deposited(1), "elsewhere")
    foreign = msgspec.structs.replace(known, type="test.Never", message_id="x")
    store.append("a-1", [known, foreign])
    with pytest.raises(events.UnknownEventTypeError, match=r"test\.Never"):
        store.load(Account, "a-1")
    assert store.load(Tolerant, "a-1").version == 1


def test_an_event_that_is_not_of_its_class_is_named_by_position(store: events.EventStore) -> None:
    good = events.Envelope.wrap(Deposited(1), "elsewhere")
    bad = msgspec.structs.replace(good, payload=msgspec.Raw(b'{"cents":"many"}'), message_id="m")
    store.append("a-1", [good, bad])
    with pytest.raises(events.InvalidEventError, match="position 2"):
        store.load(Account, "a-1")


def test_old_versions_are_migrated_also_when_the_upcaster_comes_later(store: events.EventStore) -> None:
    class Priced(events.Event, type="test.Priced", version=1):
        euros: int

    class Item(events.Aggregate):
        cents: int = 0

        @events.applies(Priced)
        def _(self, event: object) -> None:
            self.cents = getattr(event, "cents", -1)

    store.append("i-1", [Priced(3)])
    assert store.load(Item, "i-1").cents == -1

    class PricedInCents(events.Event, type="test.Priced", version=2):
        cents: int

    @events.registry.upcaster("test.Priced", 1)
    def _(data: dict[str, int]) -> dict[str, int]:
        return {"cents": data["euros"] * 100}

    assert store.load(Item, "i-1").cents == 300


def test_json_of_another_writer_is_read_too(store: events.EventStore) -> None:
    raw = msgspec.json.format(events.Envelope.wrap(Deposited(7), "x").to_json(), indent=2)
    topic = store.broker.topic("shop")
    from penstock.events.store.record_format import event_headers

    topic.append(raw, key=b"a-1", headers=event_headers(0, "test.Deposited", 1, []))
    assert store.load(Account, "a-1").balance_cents == 7


def test_deleted_and_truncated_streams(store: events.EventStore) -> None:
    account = Account("a-1")
    for cents in (1, 2, 4):
        account.deposit(cents)
    store.save(account)
    store.truncate("a-1", before_version=1)
    assert (store.load(Account, "a-1").balance_cents, store.load(Account, "a-1").version) == (6, 2)
    store.delete("a-1")
    fresh = store.load(Account, "a-1")
    assert (fresh.version, fresh.balance_cents) == (-1, 0)
    fresh.deposit(100)
    assert store.save(fresh).version == 3, "versions go on"
    assert fresh.version == 3
    fresh.deposit(1)
    store.save(fresh)
    assert store.load(Account, "a-1").balance_cents == 101
    store.tombstone("a-1")
    with pytest.raises(events.StreamDeletedError):
        store.load(Account, "a-1")


def test_must_exist(store: events.EventStore) -> None:
    with pytest.raises(events.AggregateNotFoundError, match="no-1"):
        store.load(Account, "no-1", must_exist=True)


def test_ids_and_defaults_of_their_own() -> None:
    one, two = Account(), Account()
    assert one.id != two.id and len(one.id) == 36
    one.deposit(1)
    assert (one.notes, two.notes, Account.notes) == (["+1"], [], [])
    with pytest.raises(penstock.InvalidTypeError):
        Account("")
    with pytest.raises(penstock.InvalidTypeError):
        one.record("deposited")  # type: ignore[arg-type]


def test_fields_with_factories_and_constructors() -> None:
    class Cart(events.Aggregate):
        items: dict[str, int] = msgspec.field(default_factory=lambda: {"gift": 1})
        owner: str

        def __init__(self, owner: str) -> None:
            super().__init__(f"cart-{owner}")
            self.owner = owner

    first, second = Cart("ann"), Cart("bob")
    first.items["book"] = 1
    assert (first.id, second.items, second.owner) == ("cart-ann", {"gift": 1}, "bob")

    class Forgetful(events.Aggregate):
        def __init__(self) -> None:
            pass

    with pytest.raises(penstock.InvalidArgumentError, match=r"super\(\)"):
        print(Forgetful().id)


@pytest.mark.parametrize("option", [{"snapshot_every": 0}, {"snapshot_version": "2"}, {"unknown_events": "maybe"}])
def test_bad_options_of_the_class(option: dict[str, object]) -> None:
    with pytest.raises(penstock.InvalidArgumentError):
        type(events.Aggregate)("Bad", (events.Aggregate,), {}, **option)
    with pytest.raises(penstock.InvalidArgumentError):
        type(events.Aggregate)("Bad", (events.Aggregate,), dict(option))


def test_names_that_aggregates_have_for_themselves() -> None:
    with pytest.raises(penstock.InvalidArgumentError, match="version"):
        type(events.Aggregate)("Bad", (events.Aggregate,), {"version": 1})
