"""Inbox, outbox and projector in the child of a fork: with a connection of its own, and the parent's as it was."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import TransactionStateError, events
from penstock.errors import ClosedError

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
PATIENCE_S = 60


class ForkSeen(events.Event):
    number: int


class ForkedRows(events.Projection):
    def setup(self, db: Any) -> None:
        db.execute("CREATE TABLE seen (number INTEGER)")

    @events.applies(ForkSeen)
    def _(self, db: Any, event: ForkSeen) -> None:
        db.execute("INSERT INTO seen VALUES (?)", (event.number,))


def in_child(action: Callable[[], object]) -> None:
    """Run the action in a forked child, and raise when it raised there or was False."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE_S)
        try:
            assert action() is not False
            os._exit(0)
        except BaseException as error:
            os.write(writer, repr(error).encode())
            os._exit(1)
    os.close(writer)
    said = b""
    while part := os.read(reader, 4096):
        said += part
    os.close(reader)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, said.decode()


def test_an_inbox_goes_on_in_parent_and_child(tmp_path: Path) -> None:
    with events.Inbox(tmp_path / "db", group="g") as inbox:
        inbox.remember("before")
        before = inbox.connection

        def child() -> None:
            assert inbox.connection is not before
            assert inbox.seen("before")
            with inbox.once("child") as first:
                assert first
            inbox.close()
            with pytest.raises(ClosedError):
                inbox.seen("before")

        in_child(child)
        assert inbox.connection is before and inbox.seen("child")
        with inbox.once("child") as first:
            assert not first
        assert inbox.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_thread_inside_of_once_ends_before_the_fork(tmp_path: Path) -> None:
    with events.Inbox(tmp_path / "db", group="g") as inbox:
        inside, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            with inbox.once("held"):
                inside.set()
                go_on.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        inside.wait()
        threading.Timer(0.05, go_on.set).start()
        in_child(lambda: inbox.remember("child") == 1 and inbox.seen("held"))
        thread.join()
        assert inbox.seen("held") and inbox.seen("child")


def test_a_fork_inside_of_a_transaction_leaves_it_to_the_parent(tmp_path: Path) -> None:
    with events.Inbox(tmp_path / "db", group="g") as inbox:
        with inbox.once("m") as first:
            assert first

            def child() -> None:
                with pytest.raises(TransactionStateError, match="forked inside a transaction"):
                    inbox.seen("m")

            in_child(child)
        assert inbox.seen("m")


def test_a_closed_inbox_and_one_in_memory(tmp_path: Path) -> None:
    closed, memory = events.Inbox(tmp_path / "db"), events.Inbox(":memory:")
    memory.remember("m")
    closed.close()
    in_child(lambda: memory.seen("m"))
    memory.close()


def test_a_relay_in_the_child_waits_for_the_lease_of_the_parent(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker, events.Outbox(tmp_path / "app.db") as outbox:
        broker.create_topic("events")
        outbox.add(ForkSeen(1))
        relay = outbox._relay_to(broker, 10, 60.0)
        assert relay.take_lease()

        def child() -> None:
            assert outbox.relay(broker) == 0
            outbox.add(ForkSeen(2))

        in_child(child)
        assert relay.step() == 2
        relay.drop_lease()
        in_child(lambda: outbox.add(ForkSeen(3)).message_id != "" and outbox.relay(broker) == 1)
        assert outbox.pending() == 0


def test_a_projector_goes_on_in_parent_and_child(tmp_path: Path) -> None:
    path = tmp_path / "model.db"
    with penstock.open(tmp_path / "data") as broker:
        store = events.EventStore(broker, "shop")
        with events.Projector(store, ForkedRows(), path, batch_size=5) as projector:
            store.append("s", [ForkSeen(number) for number in range(20)])
            projector.start()  # may be in the middle of it
            in_child(lambda: projector.run_once())
            projector.stop()
            in_child(lambda: projector.start().wait_for() and projector.stop())
            store.append("s", ForkSeen(20))
            in_child(lambda: projector.run_once())
            projector.run_once()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT number FROM seen ORDER BY number").fetchall() == [(n,) for n in range(21)]
    connection.close()
