"""What a fork must not copy half done: file locks of other threads, and SQLite in the middle of something.

A child has the forking thread only. What another thread was inside of stays as it was for ever: a mutex of SQLite that
is taken, a transaction that SQLite believes open, a file lock that lives as long as the child's copy of the descriptor.

Invariants: no thread holds a lock given to `held` while the process forks; a `PrivateFile` is open in the process that
opened it and in no child. In the child, connections of the parent are closed (all of them before the first is opened
again, because SQLite keeps one account of its locks per file and process) and the user opens its own.

Thread and process safety: any. A lock that cannot be had in `PATIENCE_S` (its holder waits for the forking thread) is
left out, with a warning: the fork goes on, the child leaves the parent's connections alone, and may find SQLite busy.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import weakref
from typing import Any, Protocol, TypeVar

PATIENCE_S = 5.0
_TRY_S = 0.05
_log = logging.getLogger("penstock.forks")
_gate = threading.RLock()  # nobody is between opening a file and noting it, or the other way round
_files: set[PrivateFile] = set()
_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_users: weakref.WeakSet[SqliteUser] = weakref.WeakSet()
_taken: list[Any] = []
_abandoned: list[sqlite3.Connection] = []  # never to be closed: the parent was using them
Lock = TypeVar("Lock")


class SqliteUser(Protocol):
    """What `closes_in_child` takes."""

    def leave_parent(self, idle: bool) -> None:
        """In the child of a fork: let go of the parent's connection, by `leave`."""


class PrivateFile:
    """A descriptor that no forked child keeps: `fd`, -1 once closed."""

    def __init__(self, path: str | os.PathLike[str], flags: int = os.O_RDWR | os.O_CREAT) -> None:
        with _gate:
            self.fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
            _files.add(self)

    def close(self) -> None:
        """Close it; what is locked through it is free. May be repeated, and does nothing in a child."""
        with _gate:
            _files.discard(self)
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)


def held(lock: Lock) -> Lock:
    """The lock, which from now on no other thread holds while this process forks."""
    with _gate:
        _locks.add(lock)
    return lock


def closes_in_child(user: SqliteUser) -> None:
    """`user.leave_parent` is called in a child before anything else is done there."""
    with _gate:
        _users.add(user)


def leave(connection: sqlite3.Connection | None, idle: bool) -> None:
    """In the child: close a connection of the parent; keep it untouched for ever unless it was idle."""
    if connection is not None:
        if idle:
            connection.close()
        else:
            _abandoned.append(connection)


def _before() -> None:
    _gate.acquire()
    waiting = list(_locks)
    _gate.release()
    until = time.monotonic() + PATIENCE_S
    while (refused := _take(waiting)) is not None:
        if time.monotonic() > until:
            _log.warning("a thread holds what is needed for a clean fork for %g s already", PATIENCE_S)
            break
        waiting.remove(refused)
        waiting.insert(0, refused)  # waited for first, with nothing else in hand
    _gate.acquire()


def _take(locks: list[Any]) -> Any:
    """Take all of the locks, or none and return the one that somebody else has."""
    for lock in locks:
        if not lock.acquire(timeout=_TRY_S):
            _release()
            return lock
        _taken.append(lock)
    return None


def _release() -> None:
    while _taken:
        _taken.pop().release()


def _after_in_parent() -> None:
    _gate.release()
    _release()


def _after_in_child() -> None:
    idle = bool(_taken) or not _locks
    for file in _files:
        os.close(file.fd)
        file.fd = -1
    _files.clear()
    _gate.release()
    _release()
    for user in list(_users):
        user.leave_parent(idle)


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
