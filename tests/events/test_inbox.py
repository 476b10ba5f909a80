"""The inbox over every kind of connection: first or not, in whose transaction, for how long; deaths at each step."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from children import Child

from penstock import ClosedError, InvalidArgumentError, InvalidTypeError, VirtualClock, events
from penstock.events import sql as sql_module
from penstock.events.message_id import new_message_id

from .database_kinds import OPENERS


class InboxSeen(events.Event):
    number: int


@pytest.fixture(params=["path", *OPENERS])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "inbox.db"
    if request.param == "path":
        yield path
        return
    connection = OPENERS[request.param](path)
    yield connection
    connection.close()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def inbox(database: Any, clock: VirtualClock) -> Iterator[events.Inbox]:
    with events.Inbox(database, group="g", ttl=3600, clock=clock) as made:
        run(made, "CREATE TABLE effects (what TEXT)")
        made.connection.commit()
        yield made


def run(inbox: events.Inbox, statement: str) -> list[Any]:
    cursor = inbox.connection.cursor()
    cursor.execute(statement)
    rows = cursor.fetchall() if statement.startswith("SELECT") else []
    cursor.close()
    return [row[0] for row in rows]


def effects(inbox: events.Inbox) -> list[Any]:
    return run(inbox, "SELECT what FROM effects ORDER BY what")


def test_a_message_is_first_once(inbox: events.Inbox) -> None:
    envelope = events.Envelope.wrap(InboxSeen(1), "x")
    found = []
    for message in (envelope, envelope, envelope.message_id, "another id", "another id"):
        with inbox.once(message) as first:
            found.append(first)
    assert found == [True, False, False, True, False]
    assert inbox.seen(envelope) and inbox.seen("another id") and not inbox.seen("third")
    inbox.forget("another id")
    assert not inbox.seen("another id")
    assert inbox.remember("third", "fourth", "third") == 2


def test_the_id_and_the_effect_go_together(inbox: events.Inbox) -> None:
    with pytest.raises(ValueError, match="half way"), inbox.once("m") as first:
        assert first
        run(inbox, "INSERT INTO effects VALUES ('lost')")
        raise ValueError("half way")
    assert effects(inbox) == [] and not inbox.seen("m")
    with inbox.once("m") as first:
        assert first
        run(inbox, "INSERT INTO effects VALUES ('kept')")
    assert effects(inbox) == ["kept"] and inbox.seen("m")


def test_in_a_transaction_of_the_users_it_is_a_part_of_it(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "db", isolation_level=None)
    inbox = events.Inbox(connection, group="g")
    connection.execute("CREATE TABLE effects (what)")
    connection.execute("BEGIN")
    with inbox.once("a"):
        connection.execute("INSERT INTO effects VALUES ('a')")
    assert connection.in_transaction
    connection.rollback()
    assert not inbox.seen("a")
    connection.execute("BEGIN")
    with inbox.once("a"):
        connection.execute("INSERT INTO effects VALUES ('a')")
    with pytest.raises(ValueError), inbox.once("b"):
        connection.execute("INSERT INTO effects VALUES ('b')")
        raise ValueError
    with inbox.once("a") as first:
        assert not first
    connection.commit()
    assert effects(inbox) == ["a"] and inbox.seen("a") and not inbox.seen("b")
    connection.close()


def test_groups_and_inboxes_over_one_database(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with events.Inbox(path, group="a") as one, events.Inbox(path, group="a") as same, events.Inbox(path) as other:
        with one.once("m") as first:
            assert first
        assert same.seen("m") and not other.seen("m")
        with other.once("m") as first:
            assert first
    with events.Inbox(path, group="a") as again:
        assert again.seen("m")


def test_ids_are_forgotten_after_their_time(inbox: events.Inbox, clock: VirtualClock) -> None:
    inbox.remember("old")
    clock.advance(3000)
    inbox.remember("young")
    clock.advance(600)
    assert inbox.purge() == 1
    assert not inbox.seen("old") and inbox.seen("young")
    clock.advance(3600)
    with inbox.once("new"):
        pass
    assert not inbox.seen("young") and inbox.seen("new"), "purging happens by itself"


@pytest.mark.parametrize("identity", ["old", "0193f2a4-0000-7000-8000-000000000001"])
def test_an_id_is_new_as_soon_as_its_time_is_over(inbox: events.Inbox, clock: VirtualClock, identity: str) -> None:
    envelope = events.Envelope.wrap(InboxSeen(1), "x", message_id=identity)
    for wanted, later_s in ((True, 3599.0), (False, 1.0), (True, 3599.0), (False, 1.0)):
        assert inbox.seen(envelope) is not wanted and bool(inbox.unseen([envelope])) is wanted
        with inbox.once(envelope) as first:
            assert first is wanted
        assert inbox.seen(envelope)
        clock.advance(later_s)
    with pytest.raises(KeyError), inbox.once(envelope) as first:
        assert first
        raise KeyError
    assert not inbox.seen(envelope) and inbox.remember(envelope, envelope) == 1


def test_many_are_asked_for_at_once(inbox: events.Inbox) -> None:
    envelopes = [events.Envelope.wrap(InboxSeen(number), "x") for number in range(1200)]
    inbox.remember(*envelopes[::2])
    assert inbox.unseen(envelopes) == envelopes[1::2]


def test_ids_of_any_form_are_told_apart(inbox: events.Inbox) -> None:
    base = new_message_id()
    ids = [base, base.replace("-", ""), base[:-1] + "g", "é" * 16, "-" * 36, base + "x"]
    assert inbox.remember(*ids) == len(ids) and all(inbox.seen(one) for one in ids)


def test_a_connection_that_its_user_closed(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "inbox.db")
    inbox = events.Inbox(connection)
    connection.close()
    for call in (lambda: inbox.seen("m"), lambda: inbox.remember("m"), inbox.once("m").__enter__):
        with pytest.raises(ClosedError):
            call()


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(InvalidTypeError, match="group"):
        events.Inbox(tmp_path / "db", group="")
    with pytest.raises(InvalidArgumentError, match="ttl"):
        events.Inbox(tmp_path / "db", ttl=0)
    with pytest.raises(InvalidTypeError, match="database is int"):
        events.Inbox(3)
    with events.Inbox(tmp_path / "db") as inbox, pytest.raises(InvalidTypeError, match="message is None"):
        inbox.seen(None)  # type: ignore[arg-type]


class Killed(BaseException):
    pass


def at_step(number: int) -> Callable[[str], None]:
    left = [number]

    def fault(name: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed(name)

    return fault


@pytest.mark.parametrize("step", [1, 2])
def test_an_end_at_each_step_leaves_all_or_nothing(
    inbox: events.Inbox, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_module, "fault", at_step(step))
    with pytest.raises(Killed), inbox.once("m"):
        run(inbox, "INSERT INTO effects VALUES ('m')")
    assert effects(inbox) == [] and not inbox.seen("m")
    monkeypatch.undo()
    for _ in range(2):
        with inbox.once("m") as first:
            if first:
                run(inbox, "INSERT INTO effects VALUES ('m')")
    assert effects(inbox) == ["m"]


CONSUMER = """
import os, sys
from penstock import events
from penstock.events import sql
dies_at, steps = int(sys.argv[2]), 0
def fault(name):
    global steps
    steps += 1
    if steps == dies_at:
        os.kill(os.getpid(), 9)
with events.Inbox(sys.argv[1], group="g") as inbox:
    inbox.connection.execute("CREATE TABLE IF NOT EXISTS effects (what)")
    sql.fault = fault
    for number in range(5):
        for _ in range(2):
            with inbox.once(f"m{number}") as first:
                if first:
                    inbox.connection.execute("INSERT INTO effects VALUES (?)", (number,))
"""


def test_processes_killed_at_each_step_have_their_effects_once(tmp_path: Path) -> None:
    path = tmp_path / "db"
    for dies_at in (1, 2, 4, 6, 7, 100):
        assert Child(CONSUMER, path, dies_at).wait(60) == (0 if dies_at == 100 else -9)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT what, count(*) FROM effects GROUP BY what").fetchall() == [
        (n, 1) for n in range(5)
    ]
    connection.close()
