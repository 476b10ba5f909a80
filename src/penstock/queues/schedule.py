"""Messages at the times that a cron expression names, sent by one elected process.

Crash policy: the message of a due time carries a deduplication id, and the next due time is stored after it; who
takes over after a death in between sends it again, which stores nothing.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from penstock.clock import SystemClock
from penstock.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    PenstockError,
    UnknownExchangeError,
    UnknownQueueError,
)
from penstock.queues.arguments import checked_routing_key
from penstock.queues.queue import checked_headers
from penstock.storage.directory import FileLock
from penstock.storage.topic_config import check_topic_name

if TYPE_CHECKING:
    from penstock.queues.broker import Broker
    from penstock.queues.exchange import Exchange
    from penstock.queues.queue import Queue

_log = logging.getLogger("penstock.schedule")
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """A message that is sent again and again."""

    name: str
    kind: str
    """"queue" or "exchange"."""
    target: str
    routing_key: str
    cron: str
    body: bytes
    due_ms: int
    """When it is sent next, milliseconds since the epoch."""


class Schedules:
    """The schedules of a broker's directory, and the thread that sends what is due while there are any."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._election = FileLock(broker.path / "schedules.lock")
        if broker._has_queues() and self.list():
            self._start()

    def add(
        self, name: str, target: Queue | Exchange, body: bytes, cron: str, routing_key: str, headers: Any
    ) -> Schedule:
        """Store a schedule; see `Broker.schedule`."""
        check_topic_name(name)
        kind = _kind_of(target)
        checked_routing_key(routing_key)
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise InvalidTypeError(f"body is {type(body).__name__}; bytes are needed")
        due = next_due_ms(cron, self._broker.clock.time_ms())
        pairs = [
            (key, None if value is None else value.decode("latin-1")) for key, value in checked_headers(headers or [])
        ]
        self._broker._queues.write(
            "INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            name, kind, target.name, routing_key, cron, bytes(body), json.dumps(pairs), due,
        )  # fmt: skip
        self._start()
        return Schedule(name, kind, target.name, routing_key, cron, bytes(body), due)

    def list(self) -> list[Schedule]:
        """Every schedule, by name."""
        self._broker._check_open()
        if not self._broker._has_queues():
            return []
        rows = self._broker._queues.read(
            "SELECT name, kind, target, routing_key, cron, body, due_ms FROM schedules ORDER BY name"
        )
        return [Schedule(*row) for row in rows]

    def delete(self, name: str) -> None:
        """End a schedule."""
        check_topic_name(name)
        if not self._broker._queues.write("DELETE FROM schedules WHERE name = ?", name):
            raise InvalidArgumentError(f"schedule {name!r} does not exist")

    def send_due(self) -> int:
        """Send what is due now; how many. Only in the elected process."""
        if not self._election.try_acquire():
            return 0
        now = self._broker.clock.time_ms()
        sent = 0
        for name, kind, target, key, cron, body, headers, due in self._broker._queues.read(
            "SELECT * FROM schedules WHERE due_ms <= ?", now
        ):
            pairs = [
                (header, None if value is None else value.encode("latin-1")) for header, value in json.loads(headers)
            ]
            identity = f"schedule:{name[:80]}:{due}"
            try:
                if kind == "queue":
                    self._broker._existing_queue(target).send(body, headers=pairs, deduplication_id=identity)
                else:
                    self._broker.exchange(target).publish(body, key, pairs, deduplication_id=identity)
            except (UnknownQueueError, UnknownExchangeError) as error:
                _log.warning("schedule %s has nowhere to go: %s", name, error)
            self._broker._queues.write(
                "UPDATE schedules SET due_ms = ? WHERE name = ? AND due_ms = ?", next_due_ms(cron, now), name, due
            )
            sent += 1
        return sent

    # --- the thread ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name="penstock-schedules", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        slice_s = _LOOK_S if type(self._broker.clock) is SystemClock else 0.01
        wait = 0.0
        while not self._stopped.wait(wait):
            wait = slice_s
            try:
                self.send_due()
                due = min((schedule.due_ms for schedule in self.list()), default=None)
                if due is not None:
                    wait = min(slice_s, max(0.001, (due - self._broker.clock.time_ms()) / 1000))
            except (PenstockError, OSError):
                if not self._stopped.is_set():
                    _log.exception("sending what is scheduled failed and will be tried again")

    def stop(self) -> None:
        """End the thread, and let another process take over."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        self._election.release()

    def after_fork(self) -> None:
        """In the child: the parent goes on sending; the child stands by."""
        self._election.release()
        self._lock = threading.Lock()
        running, self._thread = self._thread is not None, None
        self._stopped = threading.Event()
        if running:
            self._start()


def next_due_ms(cron: object, after_ms: int) -> int:
    """The first time after `after_ms` that a cron expression names, in UTC."""
    try:
        from croniter import croniter
    except ImportError as error:
        raise ImportError("schedules need croniter: pip install 'penstock[schedule]'") from error
    if not isinstance(cron, str) or not croniter.is_valid(cron, second_at_beginning=True):
        raise InvalidArgumentError(
            f"cron is {cron!r}; give five fields (minute hour day month weekday), or six, seconds first"
        )
    begin = datetime.fromtimestamp(after_ms / 1000, UTC)
    found: datetime = croniter(cron, begin, second_at_beginning=True).get_next(datetime)
    return round(found.timestamp() * 1000)


def _kind_of(target: object) -> str:
    from penstock.queues.exchange import Exchange
    from penstock.queues.queue import Queue

    if isinstance(target, Queue):
        return "queue"
    if isinstance(target, Exchange):
        return "exchange"
    raise InvalidTypeError(f"target is {type(target).__name__}; a Queue or Exchange is needed")
