"""Queues that do not outlive somebody: exclusive ones their owner, transient ones the time that a directory is open.

An exclusive queue belongs to the broker that declared it, which holds a file lock in the queue's directory; the kernel
drops it when the process dies. Others may publish to the queue by an exchange, and nothing else (`LockedError`); who
finds one without an owner deletes it. A queue that is not durable is deleted by the first who opens the directory after
nobody had it open.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from penstock.errors import LockedError, UnknownQueueError, UnknownTopicError
from penstock.storage.directory import FileLock

if TYPE_CHECKING:
    from penstock.queues.broker import Broker
    from penstock.queues.queue_config import QueueConfig

_FILE = "owner.lock"


class Ownership:
    """What one broker owns."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._owned: dict[str, FileLock] = {}

    def claim(self, name: str) -> None:
        """Become the owner of a queue that is declared now. Raises `LockedError`."""
        if name not in self._owned:
            lock = self._lock_of(name)
            if not lock.try_acquire():
                raise _locked(name)
            self._owned[name] = lock

    def check(self, name: str, config: QueueConfig) -> bool:
        """Whether an existing queue may be used here: False when its owner went away and it is now deleted. Raises
        `LockedError` while another broker owns it."""
        if not config.exclusive or name in self._owned:
            return True
        if self._is_owned(name):
            raise _locked(name)
        self._delete(name)
        return False

    def release(self, name: str) -> None:
        """The queue was deleted, or is not exclusive any more."""
        lock = self._owned.pop(name, None)
        if lock is not None:
            lock.release()

    def delete_abandoned(self) -> None:
        """Delete exclusive queues whose owners went away without deleting them."""
        for name, config in self._broker.queues().items():
            if config.exclusive and name not in self._owned and not self._is_owned(name):
                self._delete(name)

    def delete_owned(self) -> None:
        """The broker is closed: what it owns goes with it."""
        for name in list(self._owned):
            self._delete(name)

    def delete_transient(self) -> None:
        """Delete the queues that are not durable and were made when the directory was open before."""
        store = self._broker._queues
        for (name,) in store.read(
            "SELECT queue FROM transient WHERE incarnation < ?", self._broker._incarnation.number
        ):
            store.write("DELETE FROM transient WHERE queue = ?", name)
            config = self._broker.queues().get(name)
            if config is not None and not config.durable:
                self._delete(name)

    def after_fork(self) -> None:
        """In the child: the parent stays the owner."""
        for lock in self._owned.values():
            lock.release()  # closes the child's descriptor; the lock is the parent's
        self._owned = {}

    def _delete(self, name: str) -> None:
        with contextlib.suppress(UnknownQueueError, UnknownTopicError):  # somebody else may be faster
            self._broker._delete_queue(name)
        self.release(name)

    def _lock_of(self, name: str) -> FileLock:
        return FileLock(self._broker.path / f"{name}-0" / _FILE)

    def _is_owned(self, name: str) -> bool:
        lock = self._lock_of(name)
        try:
            free = lock.try_acquire()
        except OSError:
            return False  # its directory went away
        lock.release()
        return not free


def _locked(name: str) -> LockedError:
    return LockedError(11, f"queue {name!r} is exclusive, and belongs to another broker")
