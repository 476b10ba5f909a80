"""Forgetting: what a subject's key sealed is unreadable once the key is destroyed, everywhere."""

from __future__ import annotations

import os
import sqlite3
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

import penstock
from penstock import events
from penstock.events.key_store import KeyStore
from penstock.events.registry import SEALED_MARK

SECRET = "Rumpelstiltskin"


class Registered(events.Event, type="test.Registered", subject="customer:{customer_id}", personal=("name", "email")):
    customer_id: str
    name: str
    email: str | None = None
    country: str = "DE"


class Moved(events.Event, type="test.Moved", subject="owner", rename="camel"):
    owner: str
    street_name: events.Personal[str]
    house_number: events.Personal[int] = 0


class Viewed(events.Event, type="test.Viewed"):
    page: str


class Customer(events.Aggregate, snapshot_every=2):
    name: str = ""
    email: str | None = None
    views: int = 0

    @events.applies(Registered)
    def _(self, event: Registered) -> None:
        self.name, self.email = event.name, event.email

    @events.applies(Viewed)
    def _(self, event: Viewed) -> None:
        self.views += 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[events.EventStore]:
    with penstock.open(tmp_path / "data") as broker:
        yield events.EventStore(broker, "shop")


def everything(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def event_of(store: events.EventStore, stream: str) -> Any:
    (recorded,) = store.read(stream)
    return recorded.event


def test_read_as_written_and_stored_sealed(store: events.EventStore, tmp_path: Path) -> None:
    event = Registered("7", SECRET, "r@example.com")
    store.append("customer-7", event)
    (recorded,) = store.read("customer-7")
    assert recorded.event == event
    assert recorded.data == {"customer_id": "7", "name": SECRET, "email": "r@example.com", "country": "DE"}
    assert recorded.envelope.event() == event
    assert SEALED_MARK in recorded.value
    raw = everything(tmp_path)
    assert b"customer_id" in raw and SECRET.encode() not in raw and b64encode(SECRET.encode()) not in raw


def test_forgotten(store: events.EventStore) -> None:
    store.append("customer-7", Registered("7", SECRET, "r@example.com"))
    store.append("customer-8", Registered("8", "Eve"))
    before = next(store.read("customer-7"))
    assert store.forget("customer:7") is True
    assert event_of(store, "customer-7") == Registered("7", "[forgotten]", None)
    assert before.event == Registered("7", "[forgotten]", None), "not looked at before it was forgotten"
    assert event_of(store, "customer-8") == Registered("8", "Eve")
    assert next(store.read_all()).data["name"] == "[forgotten]"
    assert store.forget("customer:7") is False
    assert store.forget("customer:none") is False


def test_the_key_is_nowhere(store: events.EventStore, tmp_path: Path) -> None:
    for number in range(50):
        store.append(f"customer-{number}", Registered(str(number), f"{SECRET} {number}"))
    keys = store._erasure.keys
    ids = keys.keys_for([f"customer:{number}" for number in range(50)], 0)
    secrets = {subject: keys.secrets_of([key_id])[key_id] or b"" for subject, key_id in ids.items()}
    assert all(secret in everything(tmp_path) for secret in secrets.values())
    for number in range(0, 50, 2):
        store.forget(f"customer:{number}")
    raw = everything(tmp_path)
    for number in range(50):
        assert (secrets[f"customer:{number}"] in raw) == bool(number % 2)
    assert (tmp_path / "data" / "shop.keys.sqlite3").stat().st_mode & 0o077 == 0


def test_other_processes_forget_at_once(store: events.EventStore) -> None:
    store.append("customer-7", Registered("7", SECRET))
    ask, answer = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for _ in range(2):
                os.read(ask[0], 1)
                os.write(answer[1], event_of(store, "customer-7").name.ljust(20).encode())
        finally:
            os._exit(0)
    names = []
    for _ in range(2):
        os.write(ask[1], b"?")
        names.append(os.read(answer[0], 20).decode().strip())
        store.forget("customer:7")
    os.waitpid(child, 0)
    for end in (*ask, *answer):
        os.close(end)
    assert names == [SECRET, "[forgotten]"]


def test_another_store_object_forgets_at_once(store: events.EventStore) -> None:
    store.append("customer-7", Registered("7", SECRET))
    other = events.EventStore(store.broker, "shop")
    assert event_of(other, "customer-7").name == SECRET
    store.forget("customer:7")
    assert event_of(other, "customer-7").name == "[forgotten]"


def test_what_comes_after_is_new_data(store: events.EventStore) -> None:
    store.append("c-1", Registered("7", "old"))
    store.forget("customer:7")
    store.append("c-2", Registered("7", "new"))
    assert (event_of(store, "c-1").name, event_of(store, "c-2").name) == ("[forgotten]", "new")
    store.forget("customer:7")
    assert event_of(store, "c-2").name == "[forgotten]"


def test_marked_fields_defaults_and_names_on_the_wire(store: events.EventStore, tmp_path: Path) -> None:
    event = Moved("customer:7", SECRET, 12345678)
    store.append("m-1", event)
    (recorded,) = store.read("m-1")
    assert recorded.event == event and recorded.data["streetName"] == SECRET
    store.forget("customer:7")
    assert event_of(store, "m-1") == Moved("customer:7", "[forgotten]", 0)
    assert b"12345678" not in everything(tmp_path)


def test_upcasters_see_opened_data(store: events.EventStore) -> None:
    class First(events.Event, type="test.Person", version=1, subject="id", personal=("name",)):
        id: str
        name: str

    store.append("p-1", First("1", "Ada Lovelace"))
    store.append("p-2", First("2", "Ada Lovelace"))
    store.forget("2")

    class Second(events.Event, type="test.Person", version=2, subject="id", personal=("first", "last")):
        id: str
        first: str
        last: str = ""

    @events.registry.upcaster("test.Person", 1)
    def _(data: dict[str, Any]) -> dict[str, Any]:
        first, _, last = data["name"].partition(" ")
        return {"id": data["id"], "first": first, "last": last}

    assert event_of(store, "p-1") == Second("1", "Ada", "Lovelace")
    assert event_of(store, "p-2") == Second("2", "[forgotten]", "")


def test_aggregates_and_their_snapshots(store: events.EventStore, tmp_path: Path) -> None:
    customer = Customer("customer-7")
    for event in (Registered("7", SECRET, "r@example.com"), Viewed("home"), Viewed("cart")):
        customer.record(event)
    store.save(customer)
    assert store.snapshots.info(Customer, "customer-7") is not None
    loaded = store.load(Customer, "customer-7")
    assert (loaded.name, loaded.views) == (SECRET, 2)
    assert SECRET.encode() not in everything(tmp_path)
    store.forget("customer:7")
    for snapshots in (True, False):
        again = store.load(Customer, "customer-7", snapshots=snapshots)
        assert (again.name, again.email, again.views, again.version) == ("[forgotten]", None, 2, 2)
    assert store.load(Customer, "customer-7", version=1).name == "[forgotten]"


@pytest.mark.parametrize("how", ["save", "take"])
def test_a_snapshot_of_one_who_still_knows_brings_nothing_back(
    store: events.EventStore, tmp_path: Path, how: str
) -> None:
    customer = Customer("customer-7")
    customer.record(Registered("7", SECRET))
    store.save(customer)
    knows = store.load(Customer, "customer-7")
    store.forget("customer:7")
    assert knows.name == SECRET, "in this object's memory"
    if how == "save":
        for page in ("a", "b", "c"):
            knows.record(Viewed(page))
        store.save(knows)
    else:
        assert store.snapshots.take(knows) is False
    assert store.snapshots.info(Customer, "customer-7") is None
    assert SECRET.encode() not in everything(tmp_path)
    assert store.load(Customer, "customer-7").name == "[forgotten]"
    fresh = store.load(Customer, "customer-7")
    fresh.record(Viewed("d"))
    store.save(fresh, snapshot_every=1)
    assert store.load(Customer, "customer-7").name == "[forgotten]"
    assert store.snapshots.info(Customer, "customer-7") is not None


def test_one_of_several_subjects_is_enough(store: events.EventStore) -> None:
    both = Customer("pair")
    both.record(Registered("1", "Ann"))
    both.record(Registered("2", "Bob"))
    store.save(both)
    assert store.load(Customer, "pair").name == "Bob"
    store.forget("customer:1")
    assert store._snapshot_file.get("pair", Customer) is None
    assert store.load(Customer, "pair").name == "Bob"


def test_every_way_of_appending_seals(store: events.EventStore, tmp_path: Path) -> None:
    event = Registered("7", SECRET)
    store.append("c-1", event, tags=["t"])
    store.append("c-1", [Viewed("a"), event, Viewed("b"), event])
    store.append_many({"c-2": (event, events.ANY), "c-3": ([Viewed("a"), event], events.NO_STREAM)})
    store.append_if(event, tags=["customer:7"], unless=events.Query(types=["test.None"]), after=0)
    customer = Customer("c-4")
    customer.record(event)
    store.save_all([customer])
    assert SECRET.encode() not in everything(tmp_path)
    ways: list[Any] = [
        store.read("c-1"),
        store.read("c-1", backwards=True),
        store.read_all(),
        store.query(events.Query(types=[Registered])),
        store.query(events.Query(tags=["customer:7"])),
        store.read_category("c"),
        store.subscribe(timeout=0),
        store.subscription("s").receive(wait=0),
    ]
    for found in ways:
        names = {recorded.event.name for recorded in found if recorded.type == "test.Registered"}
        assert names == {SECRET}
    store.forget("customer:7")
    for found in (store.read("c-1"), store.read_all(), store.query(events.Query(tags=["customer:7"]))):
        names = {recorded.event.name for recorded in found if recorded.type == "test.Registered"}
        assert names == {"[forgotten]"}


def test_projections_that_are_fed_later_get_what_reading_gives(store: events.EventStore, tmp_path: Path) -> None:
    class Names(events.Projection):
        def setup(self, db: Any) -> None:
            db.execute("CREATE TABLE names (id TEXT, name TEXT)")

        @events.applies(Registered)
        def _(self, db: Any, event: Registered, envelope: Any) -> None:
            db.execute("INSERT INTO names VALUES (?, ?)", (event.customer_id, event.name))

    store.append("c-7", Registered("7", SECRET))
    store.append("c-8", Registered("8", "Eve"))
    store.forget("customer:7")
    path = tmp_path / "read.sqlite3"
    with events.Projector(store, Names(), path) as projector:
        projector.run_once()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM names").fetchall() == [("7", "[forgotten]"), ("8", "Eve")]


def test_envelopes_are_sealed_too(store: events.EventStore, tmp_path: Path) -> None:
    made = events.Envelope.wrap(Registered("7", SECRET), "web")
    parsed = events.Envelope.from_json(events.Envelope.wrap(Registered("7", SECRET), "web").to_json())
    store.append("c-1", [made, parsed])
    assert [recorded.event for recorded in store.read("c-1")] == [Registered("7", SECRET)] * 2
    assert SECRET.encode() not in everything(tmp_path)


def test_lost_keys_are_not_forgotten_ones(store: events.EventStore, tmp_path: Path) -> None:
    store.append("c-1", Registered("7", SECRET))
    store._erasure.keys.close()
    for path in (tmp_path / "data").glob("shop.keys.sqlite3*"):
        path.unlink()
    with pytest.raises(events.LostKeyError, match=r"keys\.sqlite3"):
        event_of(store, "c-1")
    with pytest.raises(events.LostKeyError):
        store.load(Customer, "c-1")
    store.append("c-2", Registered("7", "again"))
    with pytest.raises(events.LostKeyError, match="was lost"):
        event_of(store, "c-1")
    assert event_of(store, "c-2").name == "again"


def test_a_changed_box_is_told(store: events.EventStore) -> None:
    store.append("c-1", Registered("7", SECRET))
    sealed = events.Envelope.from_json(next(store.read("c-1")).value)
    data = msgspec.json.decode(sealed.payload)
    data["$personal"]["box"] = "A" * len(data["$personal"]["box"])
    forged = msgspec.structs.replace(sealed, payload=msgspec.Raw(msgspec.json.encode(data)), message_id="f")
    store.append("c-2", forged)
    with pytest.raises(penstock.CorruptionError, match="changed after"):
        event_of(store, "c-2")


def test_a_key_file_that_is_none(store: events.EventStore, tmp_path: Path) -> None:
    (tmp_path / "data" / "shop.keys.sqlite3").write_bytes(b"this is no database, whatever its name may say" * 50)
    with pytest.raises(penstock.CorruptionError):
        store.append("c-1", Registered("7", SECRET))
    assert store.position == 0


@pytest.mark.parametrize("subject", ["", None, 7])
def test_bad_subjects(store: events.EventStore, subject: Any) -> None:
    with pytest.raises(penstock.InvalidTypeError):
        store.forget(subject)
    with pytest.raises(penstock.InvalidArgumentError):
        store.append("c", Registered("", "x"))
    assert store.position == 0


def declare(fields: dict[str, Any], **options: Any) -> Any:
    return type(events.Event)("Bad", (events.Event,), {"__annotations__": fields}, type="test.Bad", **options)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({"name": str}, {"personal": ("name",)}, "no subject"),
        ({"name": events.Personal[str]}, {}, "no subject"),
        ({"name": str}, {"personal": ("nane",), "subject": "name"}, "nane"),
        ({"name": str}, {"personal": ("name",), "subject": "id"}, "subject of Bad"),
        ({"name": str}, {"personal": ("name",), "subject": "x{id}"}, "subject of Bad"),
        ({"id": str, "age": int}, {"personal": ("age",), "subject": "id"}, "neither None nor"),
        ({"id": str, "age": events.Personal[date]}, {"subject": "id"}, "neither None nor"),
        ({"id": str, "name": str}, {"personal": ("name",), "subject": "id", "array_like": True}, "array_like"),
    ],
)
def test_declarations_that_cannot_be_kept_are_refused(
    store: events.EventStore, fields: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    cls = declare(fields, **options)
    event = cls(
        *[date(2000, 1, 1) if kind is events.Personal[date] else 1 if kind is int else "x" for kind in fields.values()]
    )
    with pytest.raises(penstock.InvalidArgumentError, match=message):
        store.append("c", event)
    assert store.position == 0


@pytest.mark.parametrize("options", [{"subject": 5}, {"subject": ""}, {"personal": (5,)}])
def test_declarations_of_the_wrong_type(options: dict[str, Any]) -> None:
    with pytest.raises(penstock.InvalidArgumentError):
        declare({"name": str}, **options)


def test_two_who_make_the_key_of_one_subject_share_it(tmp_path: Path) -> None:
    one, two = KeyStore(tmp_path / "k.sqlite3"), KeyStore(tmp_path / "k.sqlite3")
    first = one.keys_for(["a", "b"], 1)
    assert two.keys_for(["b", "c"], 1)["b"] == first["b"]
    assert one.forget("b", 2) and not two.forget("b", 2)
    assert two.secrets_of([first["b"]]) == {first["b"]: None}
    assert two.keys_for(["b"], 3)["b"] != first["b"]
    assert one.keys_for(["b"], 3) == two.keys_for(["b"], 3)
    one.close()
    two.close()


def test_many_who_forget_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """SQLite refuses a checkpoint at once, without its busy time-out, while another one is under way."""
    subjects = [[f"{row}-{column}" for column in range(8)] for row in range(4)]
    failed: list[BaseException] = []

    def forget(mine: list[str]) -> None:
        with closing(KeyStore(tmp_path / "k.sqlite3")) as keys:
            try:
                keys.keys_for(mine, 1)
                assert all(keys.forget(subject, 2) for subject in mine)
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=forget, args=(mine,)) for mine in subjects]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
