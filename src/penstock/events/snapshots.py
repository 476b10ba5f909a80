"""Snapshots: the state of aggregates at some version, so that they load without all of their events.

Purpose: a cache beside the log. It holds the newest snapshot of an aggregate; without it everything works, slower.
Invariants: a snapshot is taken of stored events only, and names the last of them, so that one whose event is not there
(the log lost its end in a power cut) is not used. The state of an aggregate that was made of personal data is sealed
under the keys of all their subjects: with one of them destroyed it is unreadable, and is not written either.
Process and thread safety, crash policy: those of `SqliteFile`; a snapshot that is lost is taken again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_origin, get_type_hints

import msgspec

from penstock.errors import InvalidTypeError
from penstock.events.aggregate import Aggregate
from penstock.events.erasure import Erasure
from penstock.events.errors import UNREADABLE
from penstock.events.sqlite_file import SqliteFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshots (
    stream TEXT NOT NULL, class TEXT NOT NULL, schema TEXT NOT NULL, version INTEGER NOT NULL,
    message_id TEXT NOT NULL, keys TEXT NOT NULL, state BLOB NOT NULL, saved_ms INTEGER NOT NULL,
    PRIMARY KEY (stream, class)
) STRICT, WITHOUT ROWID;
"""


class SnapshotInfo(NamedTuple):
    """What is known of a snapshot."""

    version: int
    """Of the last event in it."""
    saved_ms: int
    """When it was taken, in milliseconds since the epoch."""
    size_bytes: int
    """Of its state."""
    usable: bool
    """Whether it is of the class as it is now; others are not used."""


class Snapshot(NamedTuple):
    """A state, and where it belongs."""

    version: int
    message_id: str
    """Of the event of that version."""
    key_ids: frozenset[str]
    """Of the personal data in it."""
    state: dict[str, Any]


class StateFormat:
    """How the state of an aggregate class is written. `schema` is another one when its fields are."""

    def __init__(self, cls: type[Aggregate]) -> None:
        self._name = cls.__name__
        hints = {name: hint for name, hint in _hints(cls).items() if get_origin(hint) is not ClassVar}
        self.fields = {
            name: hint for name, hint in hints.items() if hint is not ClassVar and not hasattr(Aggregate, name)
        }
        described = [(name, repr(hint)) for name, hint in sorted(self.fields.items())]
        text = json.dumps([cls.snapshot_version, described])
        self.schema = f"{cls.snapshot_version}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        optional = [(name, hint | msgspec.UnsetType, msgspec.UNSET) for name, hint in self.fields.items()]
        self._struct: Any = msgspec.defstruct("State", optional)
        self._decode = msgspec.json.Decoder(self._struct).decode

    def encode(self, aggregate: Aggregate) -> bytes:
        """The bytes of its state. Raises `InvalidTypeError`."""
        state = vars(aggregate)
        unknown = sorted(state.keys() - self.fields.keys())
        if unknown:
            raise InvalidTypeError(
                f"{self._name} keeps {', '.join(unknown)} without a declared type (`{unknown[0]}: ...` in its class), "
                "which snapshots need"
            )
        try:
            return msgspec.json.encode(self._struct(**state))
        except (TypeError, msgspec.MsgspecError, OverflowError) as error:
            raise InvalidTypeError(f"the state of {self._name} cannot be written to a snapshot: {error}") from error

    def decode(self, raw: bytes) -> dict[str, Any] | None:
        """The state, or None when these bytes are none of this class as it is now."""
        try:
            decoded = self._decode(raw)
        except UNREADABLE:
            return None
        values = ((name, getattr(decoded, name)) for name in self.fields)
        return {name: value for name, value in values if value is not msgspec.UNSET}


def _hints(cls: type[Aggregate]) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise InvalidTypeError(
            f"snapshots of {cls.__name__} need its annotations, one of which cannot be resolved: {error}"
        ) from error


class SnapshotFile:
    """The snapshots of one store."""

    def __init__(self, path: Path, erasure: Erasure) -> None:
        self._file = SqliteFile(path, _SCHEMA, durable=False)
        self._erasure = erasure
        self._formats: dict[type[Aggregate], StateFormat] = {}

    def format_of(self, cls: type[Aggregate]) -> StateFormat:
        """How states of a class are written. Raises `InvalidTypeError`."""
        found = self._formats.get(cls)
        if found is None:
            found = self._formats[cls] = StateFormat(cls)
        return found

    def get(self, stream: str, cls: type[Aggregate]) -> Snapshot | None:
        """The snapshot that is there and of use."""
        if not self._file.exists:
            return None
        how = self.format_of(cls)
        statement = (
            "SELECT version, message_id, keys, state FROM snapshots WHERE stream = ? AND class = ? AND schema = ?"
        )
        with self._file.reading() as connection:
            row = connection.execute(statement, (stream, _name(cls), how.schema)).fetchone()
        if row is None:
            return None
        version, message_id, keys, raw = row
        key_ids = frozenset(keys.split())
        if key_ids:
            raw = self._erasure.open_state(raw, key_ids)
        state = None if raw is None else how.decode(raw)
        return None if state is None else Snapshot(version, message_id, key_ids, state)

    def put(
        self,
        stream: str,
        cls: type[Aggregate],
        version: int,
        message_id: str,
        key_ids: frozenset[str],
        raw: bytes,
        now_ms: int,
    ) -> bool:
        """Keep a state in place of an older one; False when personal data in it were forgotten meanwhile."""
        sealed = self._erasure.seal_state(raw, key_ids) if key_ids else raw
        if sealed is None:
            return False
        schema = self.format_of(cls).schema
        row = (stream, _name(cls), schema, version, message_id, " ".join(sorted(key_ids)), sealed, now_ms)
        with self._file.writing() as connection:
            connection.execute(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (stream, class) DO UPDATE SET "
                "schema = excluded.schema, version = excluded.version, message_id = excluded.message_id, "
                "keys = excluded.keys, state = excluded.state, saved_ms = excluded.saved_ms "
                "WHERE excluded.version >= snapshots.version OR excluded.schema != snapshots.schema",
                row,
            )
        return True

    def info(self, stream: str, cls: type[Aggregate]) -> SnapshotInfo | None:
        """What is known of an aggregate's snapshot; None: there is none."""
        if not self._file.exists:
            return None
        statement = "SELECT version, saved_ms, length(state), schema FROM snapshots WHERE stream = ? AND class = ?"
        with self._file.reading() as connection:
            row = connection.execute(statement, (stream, _name(cls))).fetchone()
        if row is None:
            return None
        version, saved_ms, size_bytes, schema = row
        return SnapshotInfo(version, saved_ms, size_bytes, schema == self.format_of(cls).schema)

    def delete(self, stream: str | None, cls: type[Aggregate] | None = None) -> int:
        """Delete the snapshots of a stream (of a class of aggregates), or all; how many there were."""
        if not self._file.exists:
            return 0
        with self._file.writing() as connection:
            if stream is None:
                return connection.execute("DELETE FROM snapshots").rowcount
            if cls is None:
                return connection.execute("DELETE FROM snapshots WHERE stream = ?", (stream,)).rowcount
            statement = "DELETE FROM snapshots WHERE stream = ? AND class = ?"
            return connection.execute(statement, (stream, _name(cls))).rowcount

    def close(self) -> None:
        """Close the file; it opens again at the next use."""
        self._file.close()


def _name(cls: type[Aggregate]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
