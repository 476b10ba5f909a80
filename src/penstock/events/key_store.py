"""The keys under which personal data are stored, one a subject, in an SQLite file of their own.

Purpose: destroying a subject's key makes what was stored of it unreadable for ever, wherever the log was copied.
Invariants: a key is on the disk before an event under it is stored; a destroyed key leaves its id, so that data that
were forgotten are told from data whose key was lost.
Process safety: what other processes change is seen (`PRAGMA data_version`) before a remembered key is used. Thread
safety: one connection behind a lock.
Crash policy: SQLite's, synced at each change. A `forget` that did not return may have to be repeated.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from penstock.errors import LockedError
from penstock.events.errors import LostKeyError
from penstock.events.sqlite_file import SqliteFile

KEY_BYTES = 32  # AES-256
_CACHED_MAX = 10_000
_WIPE_S = 30.0
_AGAIN_S = 0.002
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    subject TEXT,
    secret BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    forgotten_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS key_of_subject ON keys (subject) WHERE subject IS NOT NULL;
"""


class KeyStore:
    """Subjects' keys. The file is made with the first key."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, _SCHEMA)
        self._seen = -1  # data_version for which what is remembered holds
        self._connection: sqlite3.Connection | None = None
        self._secrets: dict[str, bytes | None] = {}
        self._current: dict[str, str] = {}

    @property
    def path(self) -> Path:
        """Where the keys are."""
        return self._file.path

    def keys_for(self, subjects: Iterable[str], now_ms: int) -> dict[str, str]:
        """The ids of the subjects' keys; those that have none get one, all in one transaction."""
        wanted = set(subjects)
        with self._file.lock:
            self._look()
            missing = [subject for subject in wanted if subject not in self._current]
            if missing:
                self._make(missing, now_ms)
            return {subject: self._current[subject] for subject in wanted}

    def _make(self, subjects: list[str], now_ms: int) -> None:
        found = self._known(subjects)
        new = [subject for subject in subjects if subject not in found]
        if new:
            rows = [(secrets.token_urlsafe(12), subject, secrets.token_bytes(KEY_BYTES), now_ms) for subject in new]
            with self._file.writing() as connection:
                # Another process may have been faster: its key stays.
                connection.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?, NULL)", rows)
                found.update(self._known(new))
        if len(self._current) + len(found) > _CACHED_MAX:
            self._current = {}
        self._current.update(found)

    def _known(self, subjects: list[str]) -> dict[str, str]:
        statement = "SELECT id FROM keys WHERE subject = ?"
        with self._file.reading() as connection:
            rows = {subject: connection.execute(statement, (subject,)).fetchone() for subject in subjects}
        return {subject: row[0] for subject, row in rows.items() if row is not None}

    def secrets_of(self, key_ids: Iterable[str]) -> dict[str, bytes | None]:
        """The secrets of keys; None for one that was destroyed. Raises `LostKeyError` for an id that is not known."""
        if not self._file.exists:
            raise LostKeyError(f"{self.path} does not exist: the keys of personal data were lost")
        with self._file.lock:
            self._look()
            return {key_id: self._secret(key_id) for key_id in key_ids}

    def _secret(self, key_id: str) -> bytes | None:
        if key_id in self._secrets:
            return self._secrets[key_id]
        with self._file.reading() as connection:
            row = connection.execute("SELECT secret, forgotten_ms FROM keys WHERE id = ?", (key_id,)).fetchone()
        if row is None:
            raise LostKeyError(f"{self.path} does not have key {key_id!r}: it was lost, not destroyed by forgetting")
        if len(self._secrets) >= _CACHED_MAX:
            self._secrets = {}
        found = self._secrets[key_id] = row[0] if row[1] is None else None
        return found

    def forget(self, subject: str, now_ms: int) -> bool:
        """Destroy a subject's key; whether there was one. When this returns, the file and those beside it have no byte
        of it. Raises `LockedError`.
        """
        if not self._file.exists:
            return False
        statement = "UPDATE keys SET subject = NULL, secret = zeroblob(?), forgotten_ms = ? WHERE subject = ?"
        with self._file.lock:
            with self._file.writing() as connection:
                changed = connection.execute(statement, (KEY_BYTES, now_ms, subject)).rowcount
            self._secrets, self._current = {}, {}
            self._wipe()
        return changed > 0

    def _wipe(self) -> None:
        """Copy the zeros into the file and empty the write-ahead log, which had the key."""
        deadline = time.monotonic() + _WIPE_S
        while self._is_busy():  # at once while another process does the same, after a while when it is being read
            if time.monotonic() >= deadline:
                raise LockedError(
                    f"{self.path} is being read: the key is not used any more, but its bytes are still in the "
                    "write-ahead log; call again"
                )
            time.sleep(_AGAIN_S)

    def _is_busy(self) -> bool:
        with self._file.reading() as connection:
            return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])

    def _look(self) -> None:
        """Forget what is remembered if another process changed the file."""
        with self._file.reading() as connection:
            version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._seen or connection is not self._connection:
            self._secrets, self._current = {}, {}
            self._seen, self._connection = version, connection

    def close(self) -> None:
        """Close the connection; it opens again at the next use."""
        self._secrets, self._current = {}, {}
        self._file.close()
