"""The inbox: which messages a consumer has dealt with, remembered in its own database with what they caused.

Keys are (group, message id). UUIDs are kept as 16 bytes in a table without row ids: UUIDv7 ids are in order of time, so
that new ones go to its end. Beside a SQLite file, `recent_ids` says of most new ids, without SQL, that they are new;
the table decides about all others, and whenever an id is added. Crash policy: the id is committed by the transaction of
the effect, or neither is.
Thread safety: any thread for an inbox with a path; with a connection, the threads that may use it. `once` blocks
belong to one thread at a time. Process safety: any number of inboxes over one database.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from penstock._native.recent_ids import RecentIds, id_key
from penstock.clock import Clock, SystemClock
from penstock.errors import InvalidTypeError
from penstock.events.at_the_end import after
from penstock.events.checks import check_unicode, checked_clock, checked_list, checked_text
from penstock.events.envelope import Envelope
from penstock.events.guard import checked_number
from penstock.events.sql import RELEASE, SAVE, Sql

_PURGES = 32  # in one `ttl`; each looks at every id once, which is cheaper than keeping an index of their times
_CHUNK = 500
_LOWEST, _HIGHEST = bytes(16), b"\xff" * 16


class Inbox:
    """Remembers message ids for an idempotent consumer.

        with inbox.once(envelope) as first:
            if first:
                inbox.connection.execute("UPDATE stock SET ...")

    `database`: a path (the inbox opens SQLite there), a `sqlite3` connection or another DB-API connection; `group`: the
    consumer's name. `ttl`: seconds that an id is remembered, None: for ever (default 7 days). `clock`: default the
    machine's. Makes its tables when they do not exist.
    """

    def __init__(
        self,
        database: Any,
        group: str = "default",
        ttl: float | None = 604_800.0,
        clock: Clock | None = None,
    ) -> None:
        group = checked_text("group", group)
        checked_clock(clock)
        self._ttl_ms = None if ttl is None else round(checked_number("ttl", ttl, 0.001, 1e10) * 1000)
        self._clock = clock or SystemClock()
        self._sql = Sql(database)
        self.group = group
        self._purged_ms = self._clock.time_ms()
        self._recent: RecentIds | None = None
        self._make_tables()
        with self._sql.lock, self._sql.transaction(nested=True):
            self._number = self._group_number()
            self._begin_window()

    @property
    def connection(self) -> Any:
        """The database connection; inside `once`, what it does is committed with the id."""
        return self._sql.connection

    def seen(self, message: Envelope | str) -> bool:
        """Whether a message (or its id) is remembered."""
        key = self._key(message)
        if self._is_new(key):
            return False
        with self._sql.lock:
            return self._sql.has(self._select_live, self._number, key, self._expired_ms())

    def remember(self, *messages: Envelope | str) -> int:
        """Remember messages; returns how many were not known yet. Commits, unless a transaction is open."""
        with self._sql.lock, self._sql.transaction(nested=True):
            return sum(self._insert(self._key(message)) for message in messages)

    def forget(self, *messages: Envelope | str) -> None:
        """Let messages be new again. Commits, unless a transaction is open."""
        with self._sql.lock, self._sql.transaction(nested=True):
            for message in messages:
                self._sql.run("DELETE FROM penstock_inbox WHERE grp = ? AND id = ?", self._number, self._key(message))

    def once(self, message: Envelope | str) -> Once:
        """`with inbox.once(envelope) as first:` says whether this message comes for the first time; when it does, it is
        remembered with the effect.

        Opens a transaction on the connection and commits it at the end; an exception undoes both. In a transaction
        that is open already, the block is a part of it: its commit is the caller's, and an exception undoes the block.
        """
        return Once(self, self._key(message))

    def unseen(self, messages: Iterable[Envelope]) -> list[Envelope]:
        """Those messages that are not remembered, in their order: fewer questions than `seen` for each."""
        self._sql.check_open()
        keyed = [(self._key(message), message) for message in checked_list("messages", messages)]
        asked = [key for key, _ in keyed if not self._is_new(key)]
        known: set[Any] = set()
        with self._sql.lock:
            for first in range(0, len(asked), _CHUNK):
                keys = asked[first : first + _CHUNK]
                marks = ", ".join("?" * len(keys))
                statement = f"SELECT id FROM penstock_inbox WHERE grp = ? AND id IN ({marks}) AND seen_ms > ?"
                known.update(key for (key,) in self._sql.all(statement, self._number, *keys, self._expired_ms()))
        return [message for key, message in keyed if key not in known]

    def purge(self) -> int:
        """Forget what is older than `ttl`; returns how many. Happens by itself now and then."""
        self._sql.check_open()
        if self._ttl_ms is None:
            return 0
        with self._sql.lock, self._sql.transaction(nested=True):
            self._purged_ms = self._clock.time_ms()
            return self._sql.run("DELETE FROM penstock_inbox WHERE seen_ms <= ?", self._expired_ms())

    def _expired_ms(self) -> int:
        """What was remembered at this time or before is as good as forgotten."""
        return -1 if self._ttl_ms is None else self._clock.time_ms() - self._ttl_ms

    def _purge_if_due(self) -> None:
        if self._ttl_ms is None:
            return
        elapsed_ms = self._clock.time_ms() - self._purged_ms
        if abs(elapsed_ms) * _PURGES > self._ttl_ms:  # below 0: the clock went back
            self.purge()

    def _insert(self, key: Any) -> bool:
        """Whether an id was not remembered; from now on it is."""
        now_ms = self._clock.time_ms()
        if self._sql.is_sqlite:
            added = self._sql.run(self._add, self._number, key, now_ms) == 1
            if added and self._recent is not None and type(key) is bytes and not self._recent.add(key):
                self._begin_window()
        elif added := not self._sql.has(self._select, self._number, key):
            self._sql.run(self._add, self._number, key, now_ms)
        return added or self._sql.run(self._renew, now_ms, self._number, key, self._expired_ms()) == 1

    def _key(self, message: Envelope | str) -> Any:
        identity = message if isinstance(message, str) else getattr(message, "message_id", None)
        if not isinstance(identity, str) or not identity:
            raise InvalidTypeError(f"message is {message!r}; an Envelope or a message id is needed")
        if type(identity) is not str:
            identity = str.__str__(identity)
        key = id_key(identity) if self._sql.is_sqlite else identity
        if type(key) is str:
            check_unicode("message", identity)
        return key

    def _is_new(self, key: Any) -> bool:
        """Whether it is certain, without a question to the database, that an id is not remembered."""
        return type(key) is bytes and self._recent is not None and self._recent.is_new(key)

    def _begin_window(self) -> None:
        """Have the recent ids begin after all that are there, our own of this transaction as well."""
        file = self._sql.file
        if file is None:
            return
        self._sql.run("UPDATE penstock_inbox_group SET grp = grp WHERE grp = ?", self._number)  # takes the write lock
        path = Path(f"{file}-inbox-{self._number}")
        is_made = not path.exists()
        self._recent = RecentIds(str(path))
        if is_made:
            path.chmod(file.stat().st_mode & 0o777)  # whoever may write to the database has to add ids
        ((highest,),) = self._sql.all("SELECT max(id) FROM penstock_inbox WHERE grp = ?", self._number)
        if type(highest) is bytes:
            self._recent.begin(highest if len(highest) == len(_HIGHEST) else _HIGHEST)
        else:
            self._recent.begin(_LOWEST)

    def _make_tables(self) -> None:
        is_sqlite = self._sql.is_sqlite
        ids, rows = ("BLOB", "WITHOUT ROWID") if is_sqlite else ("VARCHAR(128)", "")
        self._sql.make_tables(
            "CREATE TABLE IF NOT EXISTS penstock_inbox_group (name VARCHAR(200) PRIMARY KEY, grp INTEGER)",
            f"CREATE TABLE IF NOT EXISTS penstock_inbox (grp INTEGER NOT NULL, id {ids} NOT NULL, "
            f"seen_ms BIGINT NOT NULL, PRIMARY KEY (grp, id)) {rows}",
        )
        insert = "INSERT OR IGNORE" if is_sqlite else "INSERT"
        self._add = f"{insert} INTO penstock_inbox (grp, id, seen_ms) VALUES (?, ?, ?)"
        self._select = "SELECT 1 FROM penstock_inbox WHERE grp = ? AND id = ?"
        self._select_live = f"{self._select} AND seen_ms > ?"
        self._renew = "UPDATE penstock_inbox SET seen_ms = ? WHERE grp = ? AND id = ? AND seen_ms <= ?"

    def _group_number(self) -> int:
        row = self._sql.one("SELECT grp FROM penstock_inbox_group WHERE name = ?", self.group)
        if row is None:
            (most,) = self._sql.one("SELECT COALESCE(MAX(grp), 0) FROM penstock_inbox_group") or (0,)
            row = (most + 1,)
            self._sql.run("INSERT INTO penstock_inbox_group VALUES (?, ?)", self.group, row[0])
        return int(row[0])

    def close(self) -> None:
        """Close the database, if the inbox opened it; every other call raises `ClosedError` then. May be repeated."""
        self._recent = None
        self._sql.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Inbox group={self.group!r}>"


class Once:
    """One message's turn; see `Inbox.once`."""

    __slots__ = ("_began", "_inbox", "_key", "_lock", "_saved")

    def __init__(self, inbox: Inbox, key: Any) -> None:
        self._inbox, self._key = inbox, key

    def __enter__(self) -> bool:
        inbox, sql = self._inbox, self._inbox._sql
        self._lock = sql.lock  # a child that is forked inside has another one
        self._lock.acquire()
        try:
            self._began = not sql.in_transaction
            if self._began:
                sql.begin()
            try:
                first = inbox._insert(self._key)
                self._saved = first and not self._began
                if self._saved:
                    sql.run(SAVE)  # for the effects
            except BaseException as error:
                if self._began:
                    after(error, "rollback", sql.rollback)
                raise
        except BaseException:
            self._lock.release()
            raise
        return first

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        inbox = self._inbox
        try:
            if error is not None:
                after(error, "rollback", self._undo)
                return
            if self._began:
                self._commit()
                inbox._purge_if_due()
            elif self._saved:
                inbox._sql.run(RELEASE)
        finally:
            self._lock.release()

    def _commit(self) -> None:
        sql = self._inbox._sql
        try:
            sql.commit()
        except BaseException as error:
            after(error, "rollback", sql.rollback)
            raise

    def _undo(self) -> None:
        inbox = self._inbox
        if self._began:
            inbox._sql.rollback()
        elif self._saved:
            self._undo_savepoint()

    def _undo_savepoint(self) -> None:
        inbox = self._inbox
        inbox._sql.undo_savepoint()
        if inbox._sql.in_transaction:
            inbox._sql.run("DELETE FROM penstock_inbox WHERE grp = ? AND id = ?", inbox._number, self._key)
