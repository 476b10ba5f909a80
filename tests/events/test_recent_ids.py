"""The window of recent ids: it never calls an id new that was committed, whoever begins windows or deletes the file."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import uuid
from pathlib import Path

import pytest
from children import Child
from hypothesis import given
from hypothesis import strategies as st

from penstock import InvalidArgumentError, events
from penstock._native.recent_ids import IDS_MAX_IN_WINDOW, WINDOW_BYTES, RecentIds, id_key
from penstock.events.message_id import new_message_id

LOW = bytes(16)


def ids(count: int, seed: int = 1) -> list[bytes]:
    made = random.Random(seed)
    return [number.to_bytes(6, "big") + made.randbytes(10) for number in range(1, count + 1)]


def test_an_id_that_was_added_is_not_new_and_nearly_all_others_are(tmp_path: Path) -> None:
    recent, other = RecentIds(str(tmp_path / "ids")), RecentIds(str(tmp_path / "ids"))
    keys = ids(IDS_MAX_IN_WINDOW)
    assert not other.is_new(keys[0]) and not recent.add(keys[0]), "no window yet"
    recent.begin(LOW)
    assert all(recent.add(key) for key in keys) and not recent.add(keys[0]), "the window is full"
    assert not any(other.is_new(key) for key in keys)
    unknown = ids(20_000, seed=2)
    assert sum(map(other.is_new, unknown)) > 0.98 * len(unknown)
    other.begin(keys[-1])
    assert not any(recent.is_new(key) for key in keys) and recent.is_new(b"\xff" * 16)
    assert (tmp_path / "ids").stat().st_size == WINDOW_BYTES == 64 + (256 << 10)


def test_the_bytes_of_the_worked_example(tmp_path: Path) -> None:
    recent = RecentIds(str(tmp_path / "ids"))
    recent.begin(LOW)
    assert recent.add(b"\x01" * 16)
    words = memoryview((tmp_path / "ids").read_bytes()).cast("Q").tolist()
    assert words[:8] == [2, 1, 0, 0, 0, 0, 0, 0]
    block = words[8 + 8 * 2069 : 16 + 8 * 2069]
    assert " ".join(f"{word:x}" for word in block) == "8000000 0 1002000080000 0 0 1000000 0 4000000000"
    assert sum(words[8:]) == sum(block)


def test_a_deleted_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    recent = RecentIds(str(path))
    recent.begin(LOW)
    assert recent.is_new(b"\x01" * 16)
    path.unlink()
    RecentIds(str(path)).begin(LOW)
    assert not recent.is_new(b"\x01" * 16) and not recent.add(b"\x01" * 16)
    with pytest.raises(InvalidArgumentError, match="3 bytes"):
        recent.is_new(b"abc")


@given(st.uuids(), st.integers(0, 35), st.characters())
def test_keys_are_the_bytes_of_uuids_and_else_the_text(one: uuid.UUID, at: int, other: str) -> None:
    assert id_key(str(one)) == id_key(str(one).upper()) == one.bytes
    changed = str(one)[:at] + other + str(one)[at + 1 :]
    is_uuid = other in "0123456789abcdefABCDEF" if str(one)[at] != "-" else other == "-"
    assert type(id_key(changed)) is (bytes if is_uuid else str)
    assert id_key(one.hex) == one.hex and id_key("") == ""


def test_inboxes_of_one_group_agree_through_windows_rollbacks_and_deletion(tmp_path: Path) -> None:
    path, made = tmp_path / "db", random.Random(7)
    connection = sqlite3.connect(path, isolation_level=None)
    inboxes = [events.Inbox(path, group="g"), events.Inbox(path, group="g"), events.Inbox(connection, group="g")]
    (file,) = tmp_path.glob("db-inbox-*")
    known: set[str] = set()
    pool = [new_message_id() for _ in range(200)] + [str(uuid.UUID(int=n << 96 | 5)) for n in range(20)]
    for step in range(600):
        inbox, one = made.choice(inboxes), made.choice(pool)
        assert inbox.seen(one) == (one in known)
        if step % 3 == 0:
            with inbox.once(one) as first:
                assert first == (one not in known)
            known.add(one)
        elif step % 3 == 1 and one not in known:
            with pytest.raises(ValueError), inbox.once(one):
                raise ValueError
        if step % 100 == 50:
            inbox.forget(one)
            known.discard(one)
        if step == 200:
            file.unlink()
        if step == 400:
            inboxes[1].close()
            inboxes[1] = events.Inbox(path, group="g")
    assert [inboxes[0].seen(one) for one in pool] == [one in known for one in pool]
    for inbox in inboxes:
        inbox.close()
    connection.close()


def test_an_inbox_made_inside_of_a_transaction_waits_for_writers(tmp_path: Path) -> None:
    path, message = tmp_path / "db", new_message_id()
    first = events.Inbox(path, group="g")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    second = events.Inbox(connection, group="g")  # has the write lock from here on
    connection.execute("COMMIT")
    first.remember(message)
    assert second.seen(message)
    first.close()
    connection.close()


def test_the_file_may_be_written_by_whoever_may_write_the_database(tmp_path: Path) -> None:
    path = tmp_path / "db"
    sqlite3.connect(path).close()
    path.chmod(0o660)
    events.Inbox(path, group="g").close()
    assert (tmp_path / "db-inbox-1").stat().st_mode & 0o777 == 0o660


CONSUMER = """
import sys
from penstock import events
with events.Inbox(sys.argv[1], group="g") as inbox:
    first = 0
    for line in sys.stdin:
        message = line.strip()
        if not inbox.seen(message):
            with inbox.once(message) as new:
                first += new
        assert inbox.seen(message)
    print(first)
"""


def test_processes_take_each_message_once(tmp_path: Path) -> None:
    messages = "\n".join(new_message_id() for _ in range(300))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = [Child(CONSUMER, tmp_path / "db", text=True, **pipes) for _ in range(3)]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(messages)
        process.stdin.close()
    counts = [int(process.stdout.read()) for process in running if process.stdout is not None]
    assert [process.wait(60) for process in running] == [0, 0, 0] and sum(counts) == 300
    for process in running:
        assert process.stdout is not None
        process.stdout.close()
