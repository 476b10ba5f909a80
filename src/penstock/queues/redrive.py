"""Giving dead messages another try: selected, edited, slowly, or only on paper."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock._native.delivery_states import MOVED
from penstock._native.message import Message
from penstock.clock import SystemClock
from penstock.errors import InvalidArgumentError, InvalidTypeError, WaitTimeoutError
from penstock.queues.dead_letter import source_of, without_death

if TYPE_CHECKING:
    from penstock.queues.queue import Queue

HOLD_MS = 60_000
_ALL = 1 << 40


@dataclass(slots=True)
class RedriveReport:
    """What a redrive did, or would do."""

    moved: int = 0
    """Messages moved (dry run: that would be)."""
    skipped: int = 0
    """Dead messages that the filter left, or that have no place to go back to."""
    message_ids: list[str] = field(default_factory=list)
    """Ids of the moved messages, as they were."""
    cancelled: bool = False
    """Whether it was cancelled before its end."""


class RedriveTask:
    """A redrive: `run` it, or `start` it in a thread. See `Queue.redrive` for the arguments.

    Raises `InvalidTypeError`, `InvalidArgumentError`.
    """

    def __init__(
        self,
        queue: Queue,
        filter: Callable[[Message], bool] | None = None,
        edit: Callable[[Message], bytes] | None = None,
        to: str | None = None,
        max_messages: int | None = None,
        rate: float | None = None,
        dry_run: bool = False,
    ) -> None:
        for name, given in (("filter", filter), ("edit", edit)):
            if given is not None and not callable(given):
                raise InvalidTypeError(f"{name} is {given!r}; a callable or None is needed")
        if max_messages is not None and (type(max_messages) is not int or max_messages < 1):
            raise InvalidArgumentError(f"max_messages is {max_messages!r}; give an int >= 1 or None")
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not rate > 0):
            raise InvalidArgumentError(f"rate is {rate!r}; give messages per second > 0, or None")
        self._queue = queue
        self._broker = queue._broker
        self._filter, self._edit, self._to = filter, edit, to
        self._most, self._rate, self._dry_run = max_messages, rate, dry_run
        self._target = None if to is None else self._broker._existing_queue(to)
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self.report = RedriveReport()

    @property
    def status(self) -> str:
        """RUNNING, COMPLETED, CANCELLED or FAILED, as SQS says it."""
        if self._thread is None or self._thread.is_alive():
            return "RUNNING"
        if self._error is not None:
            return "FAILED"
        return "CANCELLED" if self.report.cancelled else "COMPLETED"

    def cancel(self) -> None:
        """Stop before the next message."""
        self._cancelled.set()

    def start(self) -> RedriveTask:
        """Run in a thread."""
        self._thread = threading.Thread(target=self._run_caught, name="penstock-redrive", daemon=True)
        self._thread.start()
        return self

    def result(self, timeout: float | None = None) -> RedriveReport:
        """Wait for the end; what was done. Raises what failed, `WaitTimeoutError` when it still runs."""
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise WaitTimeoutError(
                    f"the redrive still runs after {timeout} s; {self.report.moved} messages were moved"
                )
        if self._error is not None:
            raise self._error
        return self.report

    def _run_caught(self) -> None:
        try:
            self.run()
        except Exception as error:  # also what a filter or an edit raises: `result` raises it again
            self._error = error

    def run(self) -> RedriveReport:
        """Move the messages; what was done."""
        report = self.report
        for holder, message, dead in self._dead():
            if self._most is not None and report.moved >= self._most:
                break
            if self._cancelled.is_set():
                report.cancelled = True
                break
            target = self._place_of(holder, message, dead)
            if target is None or (self._filter is not None and not self._filter(message)):
                report.skipped += 1
                continue
            if not self._dry_run:
                if not self._move(holder, message, dead, target):
                    continue
                if self._rate is not None:
                    self._pause(1 / self._rate)
            report.moved += 1
            report.message_ids.append(message.id)
        return report

    def _pause(self, seconds: float) -> None:
        if type(self._broker.clock) is SystemClock:
            self._cancelled.wait(seconds)
        else:
            self._broker.clock.sleep(seconds)

    def _dead(self) -> Iterator[tuple[Queue, Message, bool]]:
        """(queue that holds it, message, whether it is dead there or ready in a queue of dead letters), as of now."""
        queue = self._queue
        yield from ((queue, message, True) for message in queue._find("dead", _ALL, None))
        letters = queue._config.dead_letter
        if letters is None:
            held = queue
        elif letters in self._broker.queues():
            held = self._broker._opened_queue(letters)
        else:
            return
        for message in held._find("ready", _ALL, None):
            source = source_of(message.all_headers)
            if source is not None and (source == queue.name) == (held is not queue):
                yield held, message, False

    def _place_of(self, holder: Queue, message: Message, dead: bool) -> Queue | None:
        if self._target is not None:
            return self._target
        if dead:
            return holder
        source = source_of(message.all_headers)
        return self._broker.queue(source) if source in self._broker.queues() else None

    def _move(self, holder: Queue, message: Message, dead: bool, target: Queue) -> bool:
        """Whether it could be moved: somebody may have received or settled it meanwhile."""
        delivery = holder._delivery_of(message.partition)
        if dead and target is holder and self._edit is None:
            return bool(delivery.requeue(message.offset, 0))
        now = self._broker.clock.time_ms()
        if dead and not delivery.requeue(message.offset, now + HOLD_MS):
            return False
        held = delivery.acquire(holder, message.offset, now + HOLD_MS)
        if held is None:
            return False
        body = message.value if self._edit is None else self._edit(message)
        target._store_letter(message, without_death(message.headers), body)
        delivery.settle(held.offset, held.delivery_count, 3, MOVED)
        return True
