"""Keeps this process's group members alive, and notices the death of others'.

Each process with members holds a lock on a file of its own; the kernel drops it when the process dies. One elected
process looks at those locks and at the heartbeats (one word a process, however many members) several times a second; if
it hangs, the others do.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError
from penstock.storage.directory import FileLock
from penstock.storage.group_store import COORDINATOR_SLOT, GroupStore
from penstock.streams.group_coordination import detach, remove_member, remove_process

if TYPE_CHECKING:
    from penstock.streams.broker import Broker
    from penstock.streams.membership import Membership

TICK_S = 0.1
HUNG_MS = 1000  # who was silent for so long may not notice what others do
_log = logging.getLogger("penstock.groups")


class Keeper:
    """Made with the broker; its thread and lock come with the first member."""

    def __init__(self, broker: Broker) -> None:
        self._broker = weakref.ref(broker)
        self._directory = Path(broker.path) / "processes"
        self._store: GroupStore = broker._groups
        self._clock = broker.clock
        self._coordinator = FileLock(broker.path / "coordinator.lock")
        self._lock = threading.Lock()
        self._members: dict[str, tuple[Callable[[], Membership | None], object, float]] = {}
        self._attached: dict[str, weakref.ref[object]] = {}
        self._process: FileLock | None = None
        self._token = ""
        self._slot = -1
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)

    def token(self) -> str:
        """This process's name among those with members; it is known as alive from now on."""
        with self._lock:
            if self._process is None:
                self._directory.mkdir(exist_ok=True)
                self._token = uuid.uuid4().hex
                self._process = FileLock(self._directory / f"{self._token}.lock")
                self._process.try_acquire()
                with self._store.change() as connection:
                    self._slot = self._store.take_slot()
                    self._store.beat(self._slot, self._now_ms())
                    connection.execute("INSERT INTO processes VALUES (?, ?, ?)", (self._token, os.getpid(), self._slot))
                self._stopped.clear()
                self._thread = threading.Thread(
                    target=_run, args=(weakref.ref(self), self._stopped), name="penstock-keeper", daemon=True
                )
                self._thread.start()
        return self._token

    def is_alive(self, token: str) -> bool:
        """Whether the process of that name holds its lock."""
        if token == self._token:
            return True
        if not (self._directory / f"{token}.lock").exists():
            return False
        lock = FileLock(self._directory / f"{token}.lock")
        free = lock.try_acquire()
        lock.release()
        return not free

    def add(self, member: Membership) -> None:
        """Watch over a member of this process."""
        self._members[member.member_id] = (weakref.ref(member), None, self._clock.monotonic())

    def discard(self, member: Membership) -> None:
        """The member left."""
        self._members.pop(member.member_id, None)

    def drop(self, member: Membership) -> None:
        """The member is gone, and could not say so: it is removed as soon as that can be written."""
        self._members[member.member_id] = (_gone, None, 0.0)

    def watch(self, attachment: str, user: weakref.ref[Any]) -> None:
        """`user` uses a group's offsets without being a member."""
        self._attached[attachment] = user

    def forget(self, attachment: str) -> None:
        """It does not any more."""
        with self._store.change() as connection:
            detach(connection, "id", attachment, self._clock.time_ms())
        self._attached.pop(attachment, None)

    # --- several times a second --------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Say that this process is alive; look after its members; if elected, after the others."""
        self._store.beat(self._slot, self._now_ms())
        for member_id, (reference, mark, since) in list(self._members.items()):
            member = reference()
            if member is None:  # a consumer that was dropped without a close
                with self._store.change() as connection:
                    remove_member(self._store, connection, member_id, self._clock.time_ms())
                self._members.pop(member_id, None)
                continue
            progress = member.progress()
            now = self._clock.monotonic()
            if progress != mark:
                self._members[member_id] = (reference, progress, now)
            elif (now - since) * 1000 > member.settings.max_poll_interval_ms:
                _log.warning("member %s did not poll for %d ms and is removed from group %s", member_id,
                             member.settings.max_poll_interval_ms, member.group)  # fmt: skip
                self._members.pop(member_id, None)
                member.evict()
        for attachment, user in list(self._attached.items()):
            if user() is None:
                self.forget(attachment)
        elected = self._coordinator.try_acquire()
        if elected or self._now_ms() - self._store.last_beat_ms(COORDINATOR_SLOT) > HUNG_MS:
            self.look_after_others()
        if elected:
            self._resolve_transactions()
            self._store.beat(COORDINATOR_SLOT, self._now_ms())

    def look_after_others(self) -> None:
        """Remove members of dead and of hung processes, and static ones that did not come back."""
        now_ms, ring = self._now_ms(), False
        beats = {}
        for token, slot in self._store.rows("SELECT token, slot FROM processes"):
            if self.is_alive(token):
                beats[token] = now_ms - self._store.last_beat_ms(slot)
                continue
            _log.info("process %s died; its members are removed", token)
            with self._store.change() as connection:
                remove_process(self._store, connection, token, self._clock.time_ms())
            (self._directory / f"{token}.lock").unlink(missing_ok=True)
            ring = True
        silent = {token: age for token, age in beats.items() if age > HUNG_MS and token != self._token}
        for member_id, process, timeout_ms, left_ms in self._store.rows(
            "SELECT id, process, session_timeout_ms, left_ms FROM members WHERE left_ms IS NOT NULL OR ?", bool(silent)
        ):
            age = self._clock.time_ms() - left_ms if left_ms is not None else silent.get(process, 0)
            if age > timeout_ms:
                _log.warning("member %s was silent for %d ms and is removed", member_id, age)
                with self._store.change() as connection:
                    remove_member(self._store, connection, member_id, self._clock.time_ms())
                ring = True
        broker = self._broker()
        if ring and broker is not None:
            broker._bell.ring()

    def _resolve_transactions(self) -> None:
        broker = self._broker()
        if broker is not None:
            broker._transactions.resolve()

    # --- life --------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the thread and let go of the lock, once the members left."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            process, self._process = self._process, None
            try:
                if process is not None:
                    with self._store.change() as connection:
                        remove_process(self._store, connection, self._token, self._clock.time_ms())
                    (self._directory / f"{self._token}.lock").unlink(missing_ok=True)
            finally:
                if process is not None:
                    process.release()
                self._coordinator.release()

    def after_fork(self) -> None:
        """In the child: the members are the parent's."""
        if self._process is not None:
            self._process.release()
        self._coordinator.release()
        self._process, self._thread, self._token = None, None, ""
        self._members, self._attached = {}, {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()


def _gone() -> None:
    """In place of the reference to a member that was dropped."""


def _run(reference: weakref.ref[Keeper], stopped: threading.Event) -> None:
    while not stopped.wait(TICK_S):
        keeper = reference()
        if keeper is None:
            return
        try:
            keeper.tick()
        except (PenstockError, OSError):
            _log.exception("looking after group members failed and will be tried again")
        del keeper
