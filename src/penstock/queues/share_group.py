"""Receiving with acknowledgements from a topic: KIP-932's share groups, and the half of a queue that receives.

Semantics: a received message is acquired for the visibility time-out; acknowledged, it is never delivered to the
group again; given back or timed out, it is. Only failures (nack, time-out) count towards the limit. Several groups
over one topic each see every message; ordinary consumers read and replay the same records, acknowledged or not.
Thread and process safety: any number of both.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock._native.delivery import Delivery
from penstock._native.delivery_intake import EXPIRES_AT_HEADER, FLAG_EXPIRES, FLAG_PRECEDENCE
from penstock._native.delivery_states import PURGED
from penstock._native.message import Message, ack_many
from penstock.clock import SystemClock
from penstock.error_text import trace_of
from penstock.errors import (
    ClosedError,
    InvalidArgumentError,
    InvalidTypeError,
    OverLimitError,
    StaleReceiptError,
)
from penstock.queues.dead_letter import reason_of
from penstock.queues.dead_lettering import DeadLettering
from penstock.queues.delivery_store import open_delivery
from penstock.queues.presence import Presence, Waiting, somebody_waits_above
from penstock.queues.queue_config import DELAY_MAX_S, VISIBILITY_MAX_S, QueueConfig
from penstock.queues.queue_stats import Meter, QueueStats
from penstock.stopping import StopFlag
from penstock.storage.directory import FileLock, SharedLock

if TYPE_CHECKING:
    from penstock.queues.broker import Broker

ACCEPT, RELEASE, RENEW, FAIL, UNDO = 1, 2, 4, 5, 6  # see delivery.h
MESSAGES_MAX = 1_000_000  # of one receive
OFFSET_MAX = (1 << 62) - 1
STATES = ("ready", "in_flight", "delayed", "dead")
_WAIT_SLICE_S = 1.0
_VIRTUAL_SLICE_S = 0.01
_TAKE_OVER_S = 0.1  # how often a stand-by consumer looks whether the active one went away


class ShareGroup:
    """A share group over a topic; made by `Broker.share_consumer`. `Queue` is this with a topic of its own."""

    def __init__(
        self, broker: Broker, topic: str, group: str, config: QueueConfig, start: str | int = "earliest"
    ) -> None:
        self._broker = broker
        self.topic_name = topic
        self.group = group
        self._config = config
        self._start = start
        self._bell = broker._bell
        self._clock = broker.clock
        self._deliveries: list[Delivery] = []
        self._turn = 0
        self._closed = False
        self._woken = StopFlag()
        self._active: FileLock | None = None
        self._receivers: SharedLock | None = None  # taken in turns where `max_in_flight` limits them
        self._dead_lettering = DeadLettering(self)
        self._meter = Meter(self)
        self._system = type(broker.clock) is SystemClock
        self._lock = threading.Lock()
        self._generation = -1
        self._catalog_bell = broker._catalog_bell
        self._simple: Delivery | None = None  # set: receiving needs no more than one look into it
        self._visibility_ms = self._failures_max = 0
        self._refresh()
        broker._register(self)

    # --- receiving -------------------------------------------------------------------------------------------------

    @property
    def config(self) -> QueueConfig:
        """The configuration now."""
        self._refresh()
        return self._config

    def receive(
        self,
        max_messages: int = 10,
        wait: float | None = 20.0,
        visibility_timeout: float | None = None,
        consumer_priority: int = 0,
    ) -> list[Message]:
        """Up to `max_messages`, as soon as there is one; [] when none came in `wait` seconds (None: for ever).

        `visibility_timeout`: seconds, default the queue's. `consumer_priority`: while a receiver of a higher one
        (to 100) waits, in any process, those of lower ones get nothing (RabbitMQ's consumer priority).

        Raises `InvalidArgumentError`, `OverLimitError`, `CorruptionError` (a message that cannot be read; the others
        follow with the next call), `ClosedError`.
        """
        if type(max_messages) is not int or not 1 <= max_messages <= MESSAGES_MAX:
            raise InvalidArgumentError(f"max_messages is {max_messages!r}; give an int from 1 to {MESSAGES_MAX:,}")
        if type(consumer_priority) is not int or not 0 <= consumer_priority <= 100:
            raise InvalidArgumentError(f"consumer_priority is {consumer_priority!r}; give an int from 0 to 100")
        simple = self._simple_delivery()
        if simple is not None and visibility_timeout is None:
            found: list[Message] = []
            exhausted = simple.claim(self, found, -1, self._visibility_ms, max_messages, self._failures_max)
            if exhausted:
                self._bury_exhausted(exhausted)
            if found and simple.flags & FLAG_EXPIRES:
                self._drop_expired(simple, found, 0, self._clock.time_ms())
            if found:
                return found
        if visibility_timeout is None:
            visibility = self._config.visibility_timeout
        else:
            visibility = checked_visibility(visibility_timeout)
        if self._generation != self._broker.catalog_generation or self._closed:
            self._refresh()
        deadline = math.inf if wait is None else self._clock.monotonic() + checked_seconds("wait", wait)
        return self._wait_for(max_messages, visibility, deadline, self._woken, consumer_priority)

    def _simple_delivery(self) -> Delivery | None:
        """Where messages come from, when one look into it is all that receiving takes."""
        simple = self._simple
        if simple is None or self._generation != self._catalog_bell.value or simple.flags & FLAG_PRECEDENCE:
            return None
        return simple

    def _wait_for(
        self, max_messages: int, visibility: float, deadline: float, stop: StopFlag, priority: int
    ) -> list[Message]:
        if not priority:
            return self._wait_in_turn(max_messages, visibility, deadline, stop, 0)
        with self._precedence(priority):
            return self._wait_in_turn(max_messages, visibility, deadline, stop, priority)

    def _precedence(self, priority: int) -> contextlib.AbstractContextManager[Any]:
        """While this lasts, receivers of a lower priority get nothing."""
        if priority == 0:
            return contextlib.nullcontext()
        if type(priority) is not int or not 0 <= priority <= 100:
            raise InvalidArgumentError(f"consumer_priority is {priority!r}; give an int from 0 to 100")
        for delivery in self._deliveries:
            delivery.set_flag(FLAG_PRECEDENCE)
        return Waiting(Path(self._deliveries[0].directory), priority)

    def _may_receive(self, priority: int) -> bool:
        """Whether this receiver is the active one, and nobody of a higher priority waits."""
        if self._active is not None and not self._active.try_acquire():
            return False
        first = self._deliveries[0]
        return not first.flags & FLAG_PRECEDENCE or not somebody_waits_above(Path(first.directory), priority)

    def _wait_in_turn(
        self, max_messages: int, visibility: float, deadline: float, stop: StopFlag, priority: int
    ) -> list[Message]:
        out: list[Message] = []
        slice_s = _WAIT_SLICE_S if self._system else _VIRTUAL_SLICE_S
        if self._active is not None:
            slice_s = min(slice_s, _TAKE_OVER_S)
        while True:
            seen = self._bell.arm()
            self._refresh()
            allowed = self._may_receive(priority)
            if allowed:
                self._collect(out, max_messages, visibility)
            left = deadline - self._clock.monotonic()
            if out or left <= 0:
                return out
            if stop.is_set():
                if stop is self._woken:
                    stop.clear()
                return out
            self._bell.wait(seen, min(left, self._until_next() if allowed else _TAKE_OVER_S, slice_s))

    def _receive_until(
        self, stop: StopFlag, max_messages: int, wait: float, visibility_timeout: float | None, priority: int
    ) -> list[Message]:
        """`receive` for a worker: ends early when `stop` is set (and the bell rung)."""
        visibility = self._config.visibility_timeout if visibility_timeout is None else visibility_timeout
        return self._wait_for(max_messages, visibility, self._clock.monotonic() + wait, stop, priority)

    def _collect(self, out: list[Message], wanted: int, visibility: float) -> None:
        now = self._clock.time_ms()
        until = now + round(visibility * 1000)
        if self._receivers is None:
            self._take_in_turn(out, wanted, now, until)
            return
        with self._receivers:
            self._take_in_turn(out, min(wanted, self._room_in_flight(now)), now, until)

    def _take_in_turn(self, out: list[Message], wanted: int, now: int, until: int) -> None:
        """From each partition: first its share of `wanted`, then what it has."""
        deliveries = self._deliveries
        count = len(deliveries)
        first = 0 if count == 1 else self._first_partition()
        share = self._share(wanted)
        for most in (share, wanted) if share < wanted else (wanted,):
            for step in range(count):
                if len(out) >= wanted:
                    return
                self._take(deliveries[(first + step) % count], out, min(most, wanted - len(out)), now, until)

    def _share(self, wanted: int) -> int:
        """How many of `wanted` messages to take from one partition before looking into the others."""
        return wanted

    def _take(self, delivery: Delivery, out: list[Message], wanted: int, now: int, until: int) -> None:
        failures_max = self._config.max_receives or 0
        first = len(out)
        while True:
            had = len(out)
            exhausted = delivery.claim(self, out, now, until, first + wanted - had, failures_max)
            if exhausted:
                self._bury_exhausted(exhausted)
            dropped = len(out) > had and self._drop_expired(delivery, out, had, now)
            if not (exhausted or dropped) or len(out) - first >= wanted:
                return

    def _bury_exhausted(self, exhausted: list[tuple[Message, int, int | None]]) -> None:
        for message, code, ran_out_ms in exhausted:
            self._bury(message, reason_of(code), None, ran_out_ms)

    def _first_partition(self) -> int:
        self._turn = (self._turn + 1) % len(self._deliveries)
        return self._turn

    def _room_in_flight(self, now: int) -> int:
        limit = self._config.max_in_flight or 0
        room = limit - sum(delivery.counts(now)[1] for delivery in self._deliveries)
        if room <= 0:
            raise OverLimitError(f"{self.topic_name}: {limit} messages are in flight, which is max_in_flight")
        return room

    def _drop_expired(self, delivery: Delivery, out: list[Message], first: int, now: int) -> bool:
        """Take what is past its time to live out of `out[first:]`."""
        ttl = self._config.message_ttl
        if ttl is None and not delivery.flags & FLAG_EXPIRES:
            return False
        kept = []
        for message in out[first:]:
            expires = math.inf if ttl is None else message.timestamp_ms + ttl * 1000
            for name, value in message.all_headers:
                if name == EXPIRES_AT_HEADER and value is not None:
                    expires = min(expires, int.from_bytes(value, "big"))
            if now < expires:
                kept.append(message)
            else:
                self._bury(message, "expired", None, None)
        dropped = len(kept) < len(out) - first
        out[first:] = kept
        return dropped

    def _until_next(self) -> float:
        """Seconds until a message may become visible by itself."""
        least = min((at for at in (delivery.next_visible_ms() for delivery in self._deliveries) if at), default=None)
        if least is None:
            return math.inf
        return max(0.0005, (least - self._clock.time_ms()) / 1000 + 0.0005)

    def __iter__(self) -> Iterator[Message]:
        """Messages one by one, for ever; ends when this is closed. Leave each by `with message:`, or settle it."""
        try:
            with self._presence(False):
                while not self._closed:
                    yield from self.receive(1, wait=1.0)
        except ClosedError:
            return
        finally:
            self._left()

    def _presence(self, exclusive: bool) -> Presence:
        """A place among the consumers of this group."""
        return Presence(Path(self._deliveries[0].directory), exclusive)

    def _left(self) -> None:
        """A consumer went away."""

    # --- settling --------------------------------------------------------------------------------------------------

    def ack_many(self, messages: Iterable[Message]) -> list[Message]:
        """Acknowledge messages; returns those whose receipts are stale (received again since), not acknowledged."""
        stale: list[Message] = ack_many(messages)
        return stale

    def ack(self, receipt_handle: str) -> None:
        """Acknowledge by receipt handle, in any process; see `delete`."""
        self.delete(receipt_handle)

    def delete(self, receipt_handle: str) -> None:
        """Acknowledge by receipt handle (SQS's DeleteMessage). `StaleReceiptError` once it was received again."""
        delivery, offset, receipt = self._parse(receipt_handle)
        delivery.settle(offset, receipt, ACCEPT, 0)
        if delivery.sync_each:
            delivery.sync()

    def change_visibility(self, receipt_handle: str, visibility_timeout: float) -> None:
        """Let a received message's time-out end so many seconds from now; 0 gives it back (no failure)."""
        delivery, offset, receipt = self._parse(receipt_handle)
        self._renew(delivery, offset, receipt, checked_visibility(visibility_timeout))

    def _renew(self, delivery: Delivery, offset: int, receipt: int, seconds: float) -> None:
        until = self._clock.time_ms() + round(seconds * 1000)
        delivery.settle(offset, receipt, RENEW if seconds else RELEASE, until if seconds else 0)

    def _parse(self, receipt_handle: str) -> tuple[Delivery, int, int]:
        self._check_open()
        if not isinstance(receipt_handle, str):
            raise InvalidTypeError(f"receipt_handle is {type(receipt_handle).__name__}; a str is needed")
        try:
            partition, offset, receipt = map(int, receipt_handle.split("."))
        except ValueError:
            raise InvalidArgumentError(
                f"receipt_handle is {receipt_handle!r}; give one that a received message had"
            ) from None
        if not (0 <= partition < len(self._deliveries) and 0 <= offset < 2**63 and 1 <= receipt <= 1023):
            raise StaleReceiptError(f"receipt_handle is {receipt_handle!r}; it is none of {self.topic_name!r}")
        return self._delivery_of(partition), offset, receipt

    def _extend(self, message: Message, seconds: float) -> None:
        self._renew(
            self._delivery_of(message.partition), message.offset, message.delivery_count, checked_visibility(seconds)
        )

    def _nack(self, message: Message, delay: float, failed: bool, error: str | None = None) -> None:
        seconds = checked_seconds("delay", delay)
        limit = self._config.max_receives
        if failed and limit is not None and message.failure_count + 1 >= limit:
            self._bury(message, "delivery_limit", error, None)
            return
        if failed and not seconds:
            seconds = min(self._config.retry_delay * (message.failure_count + 1), self._config.retry_delay_max)
        visible = self._clock.time_ms() + round(seconds * 1000) if seconds else 0
        self._delivery_of(message.partition).settle(
            message.offset, message.delivery_count, FAIL if failed else RELEASE, visible
        )

    def _failed(self, message: Message, error: BaseException) -> None:
        """A handler raised: a failure that remembers why, should it be the last."""
        self._nack(message, 0.0, True, trace_of(error))

    def _reject(self, message: Message, reason: str) -> None:
        if not isinstance(reason, str):
            raise InvalidTypeError(f"reason is {type(reason).__name__}; a str is needed")
        self._bury(message, "rejected", None if reason == "rejected" else reason, None)

    def _bury(self, message: Message, reason: str, error: str | None, ran_out_ms: int | None) -> None:
        self._dead_lettering.bury(message, reason, error, ran_out_ms)

    # --- state -----------------------------------------------------------------------------------------------------

    def stats(self) -> QueueStats:
        """Exact counts of this group's messages now; does not read them."""
        self._refresh()
        return self._meter.read()

    def settled_to(self, partition: int = 0) -> int:
        """The offset before which all of a partition is settled, or dead."""
        self._refresh()
        delivery = self._delivery_of(partition)
        end = delivery.log.log_end_offset  # before counting: what comes meanwhile is not settled
        oldest = delivery.counts(self._clock.time_ms())[4]
        return oldest if oldest >= 0 else end

    def peek(
        self,
        state: str = "ready",
        max_messages: int = 10,
        filter: Callable[[Message], bool] | None = None,
    ) -> list[Message]:
        """Messages in a state (`ready`, `in_flight`, `delayed`, `dead`), the oldest first, untouched. `filter(message)`
        selects.

        They are not received: to settle one of them is a `StaleReceiptError`, unless somebody has it in flight.
        """
        if state not in STATES:
            raise InvalidArgumentError(f"state is {state!r}; allowed are {', '.join(map(repr, STATES))}")
        if filter is not None and not callable(filter):
            raise InvalidTypeError(f"filter is {filter!r}; a callable or None is needed")
        if type(max_messages) is not int or max_messages < 1:
            raise InvalidArgumentError(f"max_messages is {max_messages!r}; give an int >= 1")
        self._refresh()
        return self._find(state, max_messages, filter)

    def _find(self, state: str, most: int, accept: Callable[[Message], bool] | None) -> list[Message]:
        found: list[Message] = []
        now = self._clock.time_ms()
        for delivery in self._deliveries:
            start = 0
            while len(found) < most:
                offsets = delivery.find(state, now, start, 1000 if accept is not None else min(most - len(found), 1000))
                for offset in offsets:
                    message = delivery.read(self, offset)
                    if message is not None and len(found) < most and (accept is None or accept(message)):
                        found.append(message)
                if not offsets:
                    break
                start = offsets[-1] + 1
        return found

    def purge(self, state: str = "unsettled") -> int:
        """Drop every ready and delayed message (`state` "dead": the dead ones); returns how many. What is in flight
        stays."""
        if state not in ("unsettled", "dead"):
            raise InvalidArgumentError(f"state is {state!r}; allowed are 'unsettled', 'dead'")
        self._refresh()
        return sum(delivery.archive(0, 2**62, PURGED, state) for delivery in self._deliveries)

    def revive(self, message: Message) -> bool:
        """Let a dead message (of `peek`) be received again, its failures forgotten; False when it is not dead any
        more."""
        if not isinstance(message, Message):
            raise InvalidTypeError(f"message is {message!r}; what peek returned is needed")
        self._refresh()
        return self._delivery_of(message.partition).requeue(message.offset, 0)

    def priority_of(self, partition: int) -> int:
        """The priority of the messages in a partition: 0, as a topic has none."""
        return 0

    def _delivery_of(self, partition: int) -> Delivery:
        return self._deliveries[partition]

    def _refresh(self) -> None:
        """Follow the catalog: partitions added, configuration changed, topic deleted."""
        self._check_open()
        generation = self._broker.catalog_generation
        if generation == self._generation:
            return
        with self._lock:
            self._follow()
            self._generation = generation

    def _follow(self) -> None:
        count = self._broker._topic_config(self.topic_name).partitions
        deliveries = [one for one in self._deliveries if not self._broker._log(self.topic_name, one.log.number).deleted]
        if len(deliveries) < len(self._deliveries) or any(
            one.log is not self._broker._log(self.topic_name, one.log.number) for one in deliveries
        ):
            deliveries = []
        for number in range(len(deliveries), count):
            deliveries.append(self._open(number))
        self._deliveries = deliveries
        config = self._config
        simple = len(deliveries) == 1 and self._system and not config.single_active_consumer
        simple = simple and config.max_in_flight is None and config.message_ttl is None and config.expires is None
        self._simple = deliveries[0] if simple else None
        self._visibility_ms = round(config.visibility_timeout * 1000)
        for delivery in deliveries:
            delivery.visibility_ms = self._visibility_ms
        self._failures_max = config.max_receives or 0
        self._limit_receivers(config.max_in_flight is not None)
        if not self._config.single_active_consumer:
            self._leave_active()
        elif self._active is None:
            self._active = FileLock(Path(deliveries[0].directory) / "active.lock")

    def _limit_receivers(self, limited: bool) -> None:
        if limited and self._receivers is None:
            self._receivers = SharedLock(Path(self._deliveries[0].directory) / "receivers.lock")
        elif not limited:
            self._receivers = None

    def _leave_active(self) -> None:
        if self._active is not None:
            self._active.release()
            self._active = None

    def _open(self, number: int) -> Delivery:
        log = self._broker._log(self.topic_name, number)
        delivery = open_delivery(self._broker, log, self.group, ordered=self._config.fifo)
        if delivery.fresh and self._start != "earliest":
            delivery.skip_to(self._start if isinstance(self._start, int) else log.log_end_offset)
        return delivery

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the handle on {self.topic_name!r} was closed")
        self._broker._check_open()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def sync(self) -> None:
        """What was settled so far is on the disk when this returns."""
        for delivery in self._deliveries:
            if not self._broker._closed and not delivery.log.deleted:
                delivery.sync()

    def wakeup(self) -> None:
        """Make a blocked `receive` return now, or the next one that would block."""
        self._woken.set()
        self._bell.ring()

    def close(self) -> None:
        """End; a blocked `receive` raises `ClosedError`. Messages that were received and not settled come back in
        time."""
        if not self._closed:
            self._closed = True
            self._simple = None
            self._leave_active()
            if self._receivers is not None:
                self._receivers.close()
            self._broker._unregister(self)
            self._bell.ring()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._woken = StopFlag()
        self._meter.after_fork()
        if self._receivers is not None:
            self._receivers.after_fork()
        if self._active is not None:  # it is the parent's
            self._active.release()
        for delivery in self._deliveries:
            delivery.after_fork()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<penstock.{type(self).__name__} {self.topic_name!r} group={self.group!r}>"


def checked_visibility(value: object) -> float:
    """A visibility time-out in seconds, or an error that says what is allowed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"visibility_timeout is {value!r}; give seconds, 0 to {VISIBILITY_MAX_S}")
    if not 0 <= value <= VISIBILITY_MAX_S:
        raise InvalidArgumentError(f"visibility_timeout is {value!r}; give seconds, 0 to {VISIBILITY_MAX_S}")
    return value


def checked_seconds(name: str, value: object, most: float = DELAY_MAX_S) -> float:
    """A number of seconds, or an error that says what is allowed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"{name} is {value!r}; give seconds, 0 to {most}")
    if not 0 <= value <= most:
        raise InvalidArgumentError(f"{name} is {value!r}; give seconds, 0 to {most}")
    return value
