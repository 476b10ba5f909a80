"""A queue: a topic with one share group. SQS's and RabbitMQ's models: delays, priorities, message groups, limits,
dead letters.

Storage: partition p holds the messages of priority `max_priority - p`; a message group is the record's key; what the
queue needs to know of a message (when it becomes visible, when it expires, its deduplication id) are headers
`penstock.*`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock._native.delivery_intake import EXPIRES_AT_HEADER, FLAG_DELAYS, FLAG_EXPIRES, VISIBLE_AT_HEADER
from penstock._native.message import Message
from penstock.errors import InvalidArgumentError, InvalidTypeError, PenstockError
from penstock.queues.admission import Admission
from penstock.queues.arguments import checked_items, checked_text
from penstock.queues.batch import (
    ENTRIES_MAX,
    BatchResult,
    batch_results,
    check_entry,
    check_sizes,
    checked_batch,
    named_entries,
)
from penstock.queues.dead_letter import Headers, source_of
from penstock.queues.deduplication import Deduplication, content_id
from penstock.queues.presence import abandoned
from penstock.queues.queue_config import DELAY_MAX_S, FAIR_LANES, QueueConfig
from penstock.queues.redrive import RedriveReport, RedriveTask
from penstock.queues.share_group import UNDO, ShareGroup, checked_seconds
from penstock.queues.worker import Worker

if TYPE_CHECKING:
    from penstock.queues.broker import Broker

WAIT_MAX_S = 20  # of SQS's calls
_PLAIN = (0, None, None, None, None, None, None)  # the arguments of `send` that most calls leave as they are


class Queue(ShareGroup):
    """A queue of an open broker; made by `Broker.queue`. Used by any number of threads, and after a fork."""

    def __init__(self, broker: Broker, name: str, config: QueueConfig) -> None:
        self.name = name
        self._admission: Admission | None = None
        super().__init__(broker, name, name, config)
        self._deduplication = Deduplication(broker, self)
        self._append = broker.topic(name).append
        self._used_ms = self._lane = 0

    # --- sending ---------------------------------------------------------------------------------------------------

    def send(
        self,
        value: Any,
        delay: float | None = None,
        priority: int = 0,
        ttl: float | None = None,
        group_id: str | None = None,
        deduplication_id: str | None = None,
        headers: Any = None,
        at: datetime | int | None = None,
    ) -> str:
        """Store a message; returns its id. Stored when this returns, as durable as the broker's `fsync`.

        `value`: bytes-like. `delay`: seconds until it becomes visible (default: the queue's), or `at`, a point in
        time (an aware `datetime`, or milliseconds since the epoch). `priority`: 0 to the queue's `max_priority`.
        `ttl`: seconds after which it is not delivered any more. `group_id`: its message group. `deduplication_id`:
        nothing is stored when one with this id was sent within the queue's `deduplication_window`; returns that one's
        id. `headers`: (str, bytes or None) pairs.

        Raises `InvalidArgumentError`, `InvalidTypeError`, `RecordTooLargeError`, `QueueFullError`, `DiskFullError`
        (nothing was stored).
        """
        if self._generation != self._catalog_bell.value or self._closed:
            self._refresh()
        if self._plain and (priority, delay, ttl, group_id, deduplication_id, headers, at) == _PLAIN:
            if value is None:
                raise InvalidTypeError("value is None; bytes are needed")
            return f"{self._id_prefix}{self._append(value, None, None, None, 0).offset}"
        key, extra = self._describe(value, delay, priority, ttl, group_id, at)
        config = self._config
        partition = self._partition_for(priority, group_id)
        if headers:
            extra = [*checked_headers(headers), *extra]
        dropped: list[Message] = []
        if deduplication_id is not None or config.content_based_deduplication:
            identity = content_id(value) if deduplication_id is None else deduplication_id
            partition, offset = self._deduplication.send(identity, value, key, extra, partition, dropped)
        else:
            offset = self._store(value, key, extra, partition, dropped)
        if dropped and self._admission is not None:
            self._admission.settle(dropped)
        return f"{self.name}-{partition}-{offset}"

    def _store(
        self,
        value: Any,
        key: bytes | None,
        headers: Headers,
        partition: int,
        dropped: list[Message],
        refuse: bool = True,
    ) -> int:
        """Store a message within the queue's limits; its offset. The caller settles what was `dropped`."""
        if self._admission is None:
            return int(self._append(value, key, headers, None, partition).offset)
        return self._admission.store(value, key, headers, partition, dropped, refuse)

    def _store_letter(self, message: Message, headers: Headers, value: Any = None) -> None:
        """Store a message that comes from another queue, or its dead letter; the limits may drop heads, not refuse
        it."""
        dropped: list[Message] = []
        partition = self._partition_for(min(message.priority, self._config.max_priority), message.group_id)
        self._store(message.value if value is None else value, message.key, headers, partition, dropped, False)
        if dropped and self._admission is not None:
            self._admission.settle(dropped)

    def _partition_for(self, priority: int, group_id: str | None) -> int:
        if not self._config.fair:
            return self._config.max_priority - priority
        self._lane += 1  # without a group: any lane
        return (zlib.crc32(group_id.encode()) if group_id is not None else self._lane) % FAIR_LANES

    def _describe(
        self,
        value: Any,
        delay: float | None,
        priority: int,
        ttl: float | None,
        group_id: str | None,
        at: datetime | int | None,
    ) -> tuple[bytes | None, Headers]:
        """Check the arguments of `send`; the record's key, and the headers that the queue needs."""
        config = self._config
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise InvalidTypeError(f"value is {type(value).__name__}; bytes, bytearray or memoryview are needed")
        if type(priority) is not int or not 0 <= priority <= config.max_priority:
            raise InvalidArgumentError(
                f"priority is {priority!r}; queue {self.name!r} allows an int from 0 to {config.max_priority}"
            )
        extra: Headers = []
        if delay is not None or at is not None or config.delay:
            visible = self._visible_ms(delay, at)
            if visible:
                self._flag(FLAG_DELAYS)
                extra.append((VISIBLE_AT_HEADER, struct.pack(">q", visible)))
        if ttl is not None:
            self._flag(FLAG_EXPIRES)
            expires = self._clock.time_ms() + round(checked_seconds("ttl", ttl, DELAY_MAX_S) * 1000)
            extra.append((EXPIRES_AT_HEADER, struct.pack(">q", expires)))
        return None if group_id is None else _group_key(group_id), extra

    def _visible_ms(self, delay: float | None, at: datetime | int | None) -> int:
        if at is not None:
            if delay is not None:
                raise InvalidArgumentError(f"delay is {delay!r} and at is {at!r}; give one of them")
            return point_in_time_ms("at", at)
        seconds = self._config.delay if delay is None else checked_seconds("delay", delay, DELAY_MAX_S)
        return self._clock.time_ms() + round(seconds * 1000) if seconds else 0

    def _flag(self, flag: int) -> None:
        for delivery in self._deliveries:
            delivery.set_flag(flag)

    def send_many(
        self,
        values: Iterable[Any],
        delay: float | None = None,
        priority: int = 0,
        ttl: float | None = None,
        group_ids: Iterable[str] | None = None,
    ) -> int:
        """Store many messages; returns how many. Stored when this returns; lists of bytes take the fast path.

        `group_ids`: as many message groups. The other arguments hold for all of them; see `send`. An error carries
        `.accepted`, the number of messages stored before it.
        """
        self._refresh()
        config = self._config
        checked_items("values", values)
        if group_ids is not None:
            checked_items("group_ids", group_ids)
        special = delay is not None or ttl is not None or bool(config.delay) or config.fair
        if (
            special
            or config.content_based_deduplication
            or config.max_length is not None
            or config.max_length_bytes is not None
        ):
            return self._send_each(values, delay, priority, ttl, group_ids)
        self._describe(b"", None, priority, None, None, None)
        partition = config.max_priority - priority
        with self._broker.producer(linger_ms=3_600_000, enable_idempotence=False) as producer:
            try:
                if group_ids is None:
                    return int(producer.send_many(self.name, values, None, partition))
                return int(producer._send_named(self.name, list(values), list(group_ids), partition))
            finally:
                try:
                    producer.flush()
                except PenstockError as error:
                    error.accepted = 0  # type: ignore[attr-defined]
                    producer.purge()
                    raise

    def _send_each(
        self,
        values: Iterable[Any],
        delay: float | None,
        priority: int,
        ttl: float | None,
        group_ids: Iterable[str] | None,
    ) -> int:
        groups = iter(group_ids) if group_ids is not None else None
        sent = 0
        for value in values:
            try:
                self.send(value, delay, priority, ttl, next(groups, None) if groups is not None else None)
            except Exception as error:
                error.accepted = sent  # type: ignore[attr-defined]
                raise
            sent += 1
        return sent

    # --- SQS's batches ---------------------------------------------------------------------------------------------

    def send_batch(self, entries: Iterable[Mapping[str, Any]]) -> list[BatchResult]:
        """Send up to 10 messages of at most 1 MiB together (SQS's SendMessageBatch); a result for each, in order.

        An entry: the arguments of `send` by name (`delay` at most 900 s, at most 10 `headers`), and optionally `id`
        (1 to 80 letters, digits, - and _; all different). What fails does not keep the others from being sent.
        """
        checked = checked_batch(entries)
        check_sizes(checked)
        return batch_results(checked, self._send_entry)

    def _send_entry(self, entry: dict[str, Any]) -> str:
        check_entry(entry)
        return self.send(**entry)

    def delete_batch(self, receipt_handles: Iterable[str]) -> list[BatchResult]:
        """Acknowledge up to 10 messages by receipt handle, all different; a result for each."""
        entries = checked_batch(named_entries("receipt_handles", receipt_handles))
        return batch_results(entries, lambda entry: self.delete(entry["receipt_handle"]))

    def change_visibility_batch(self, entries: Iterable[tuple[str, float]]) -> list[BatchResult]:
        """Change the time-outs of up to 10 messages, (receipt handle, seconds from 0 to 43,200) each; a result for
        each."""
        checked = checked_batch(named_entries("entries", entries, "visibility_timeout"))
        return batch_results(checked, lambda entry: self.change_visibility(**entry))

    # --- looking ---------------------------------------------------------------------------------------------------

    def peek(
        self,
        state: str = "ready",
        max_messages: int = 10,
        filter: Callable[[Message], bool] | None = None,
    ) -> list[Message]:
        """As `ShareGroup.peek`; `dead`: those kept here as dead, then those of the `dead_letter` queue that came from
        here.
        """
        found = super().peek(state, max_messages, filter)
        letters = self._config.dead_letter
        if state == "dead" and len(found) < max_messages and letters in self._broker.queues():

            def ours(message: Message) -> bool:
                return source_of(message.all_headers) == self.name and (filter is None or filter(message))

            found += self._broker.queue(str(letters))._find("ready", max_messages - len(found), ours)
        return found

    def attributes(self) -> dict[str, str]:
        """What SQS's GetQueueAttributes says, under its names."""
        stats, config = self.stats(), self._config
        found = {
            "ApproximateNumberOfMessages": stats.ready,
            "ApproximateNumberOfMessagesNotVisible": stats.in_flight,
            "ApproximateNumberOfMessagesDelayed": stats.delayed,
            "ApproximateAgeOfOldestMessage": round(stats.age_of_oldest_s),
            "VisibilityTimeout": round(config.visibility_timeout),
            "DelaySeconds": round(config.delay),
            "MessageRetentionPeriod": -1 if config.retention is None else round(config.retention),
            "MaximumMessageSize": config.max_message_bytes,
            "FifoQueue": str(config.fifo).lower(),
            "ContentBasedDeduplication": str(config.content_based_deduplication).lower(),
            "DeduplicationScope": config.deduplication_scope,
            "RedriveAllowPolicy": _allow_policy(config.redrive_allow_policy),
        }
        if config.dead_letter is not None:
            found["RedrivePolicy"] = json.dumps(
                {"deadLetterTargetArn": config.dead_letter, "maxReceiveCount": config.max_receives}
            )
        return {name: str(value) for name, value in found.items()}

    # --- everything at once ----------------------------------------------------------------------------------------

    def redrive(
        self,
        filter: Callable[[Message], bool] | None = None,
        edit: Callable[[Message], bytes] | None = None,
        to: str | None = None,
        max_messages: int | None = None,
        rate: float | None = None,
        dry_run: bool = False,
    ) -> RedriveReport:
        """Give dead messages another try; returns what was moved.

        Those kept here as dead, and those in the `dead_letter` queue that came from here, come back to this queue;
        called on a queue of dead letters, its ready messages go back to where they came from. `filter(message)`
        selects; `edit(message)` returns another body; `to`: the queue to move them to; `rate`: messages per second;
        `dry_run`: only say which. A death in the middle may move one message twice, and loses none.
        """
        return RedriveTask(self, filter, edit, to, max_messages, rate, dry_run).run()

    def start_redrive(self, **options: Any) -> RedriveTask:
        """`redrive` in a thread, as a task with `status`, `cancel()` and `result()` (SQS's StartMessageMoveTask)."""
        return RedriveTask(self, **options).start()

    # --- receiving again -------------------------------------------------------------------------------------------

    def receive_attempt(
        self, attempt_id: str, max_messages: int = 10, wait: float | None = 0.0, visibility_timeout: float | None = None
    ) -> list[Message]:
        """`receive`, repeatable: with the same id within 5 minutes it returns the same messages, unless their time-out
        ended or they were settled (SQS's ReceiveRequestAttemptId, for when the answer of the first call was lost).
        `max_messages`: 1 to 10; `wait`: 0 to 20 seconds, as in SQS. Raises
        `InvalidArgumentError`."""
        checked_text("attempt_id", attempt_id)
        if type(max_messages) is not int or not 1 <= max_messages <= ENTRIES_MAX:
            raise InvalidArgumentError(f"max_messages is {max_messages!r}; give an int from 1 to {ENTRIES_MAX}")
        checked_seconds("wait", 0 if wait is None else wait, WAIT_MAX_S)
        known = self._deduplication.attempt(attempt_id)
        if known:
            again = []
            for partition, offset, receipt in known:
                message = self._delivery_of(partition).received(self, offset, receipt)
                if message is not None:
                    if visibility_timeout is not None:
                        message.extend(visibility_timeout)
                    again.append(message)
            if again:
                return again
        messages = self.receive(max_messages, wait, visibility_timeout)
        if messages:
            self._deduplication.remember_attempt(
                attempt_id, [(message.partition, message.offset, message.delivery_count) for message in messages]
            )
        return messages

    def consume(self, handler: Callable[[Message], Any], **options: Any) -> None:
        """Run `handler(message)` for every message until `stop`, SIGTERM or SIGINT; see `Worker` for the options."""
        self.worker(handler, **options).run()

    def worker(self, handler: Callable[[Message], Any], **options: Any) -> Worker:
        """A `Worker` to be run or started; see there."""
        return Worker(self, handler, **options)

    # --- state -----------------------------------------------------------------------------------------------------

    def priority_of(self, partition: int) -> int:
        """The priority of the messages in a partition."""
        return 0 if self._config.fair else self._config.max_priority - partition

    def _first_partition(self) -> int:
        return super()._first_partition() if self._config.fair else 0  # 0: the highest priority

    def _share(self, wanted: int) -> int:
        return max(1, wanted // FAIR_LANES) if self._config.fair else wanted

    def _follow(self) -> None:
        config = self._config = self._broker._queue_config(self.name)
        self._plain = not (
            config.delay or config.fair or config.max_priority or config.content_based_deduplication
            or config.max_length is not None or config.max_length_bytes is not None
        )  # fmt: skip
        self._id_prefix = f"{self.name}-0-"
        super()._follow()
        limited = config.max_length is not None or config.max_length_bytes is not None
        if limited and self._admission is None:
            self._admission = Admission(self)
        elif not limited:
            self._admission = None

    def _left(self) -> None:
        if self._config.auto_delete and not self._broker.closed:
            self._delete_if_abandoned()

    def _delete_if_abandoned(self) -> bool:
        gone = abandoned(Path(self._deliveries[0].directory))
        if gone and self.name in self._broker.queues():
            self._broker.delete_queue(self.name)
        return gone

    def _collect(self, out: list[Message], wanted: int, visibility: float) -> None:
        if self._config.expires is not None:
            self._note_use()
        super()._collect(out, wanted, visibility)

    def _note_use(self) -> None:
        """Let the queue live on; written down a few times in each `expires`."""
        now = self._clock.time_ms()
        if now - self._used_ms >= (self._config.expires or 0) * 250:
            self._used_ms = now
            self._broker._queues.write("UPDATE queues SET used_ms = ? WHERE name = ?", now, self.name)

    def _unused(self, now_ms: int) -> bool:
        if self._config.expires is None:
            return False
        rows = self._broker._queues.read("SELECT used_ms FROM queues WHERE name = ?", self.name)
        return bool(rows) and now_ms - rows[0][0] > self._config.expires * 1000

    def _maintain(self) -> None:
        """Delete the queue when nobody needs it; expire what is past its time to live at the head, and drop the state
        of what is settled."""
        now = self._clock.time_ms()
        if self._unused(now):
            self._broker.delete_queue(self.name)
            return
        if self._config.auto_delete and self._delete_if_abandoned():
            return
        for delivery in self._deliveries:
            while True:
                found: list[Message] = []
                if self._config.message_ttl is None and not delivery.flags & FLAG_EXPIRES:
                    break
                self._bury_exhausted(delivery.claim(self, found, now, now + 30_000, 100, 0) or [])
                live = list(found)
                self._drop_expired(delivery, live, 0, now)
                for message in live:
                    delivery.settle(message.offset, message.delivery_count, UNDO, 0)
                if len(live) == len(found):
                    break
            delivery.take_in()

    def close(self) -> None:
        """See `ShareGroup.close`."""
        super().close()
        if self._admission is not None:
            self._admission.close()

    def _after_fork(self) -> None:
        super()._after_fork()
        if self._admission is not None:
            self._admission.after_fork()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._broker, self.name)


def _reopen(broker: Broker, name: str) -> Queue:
    return broker.queue(name)


def _allow_policy(policy: str | tuple[str, ...]) -> str:
    if isinstance(policy, str):
        return json.dumps({"redrivePermission": policy})
    return json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": list(policy)})


def _group_key(group_id: object) -> bytes:
    return checked_text("group_id", group_id).encode()


def checked_headers(headers: Any) -> Headers:
    """Headers as a list of pairs; names that begin with `penstock.` are the queue's own."""
    try:
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        for name, _ in pairs:
            if isinstance(name, str) and name.startswith("penstock."):
                raise InvalidArgumentError(
                    f"a header is named {name!r}; names that begin with 'penstock.' are the queue's own"
                )
    except (TypeError, ValueError) as error:
        if isinstance(error, PenstockError):
            raise
        raise InvalidTypeError(f"headers is {headers!r}; a list of (str, bytes or None) pairs is needed") from None
    return pairs


def point_in_time_ms(name: str, value: object) -> int:
    """Milliseconds since the epoch of an aware `datetime` or an int."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidArgumentError(f"{name} is {value!r}, without a time zone; give an aware datetime")
        return max(1, round(value.timestamp() * 1000))
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{name} is {value!r}; give an aware datetime, or milliseconds since the epoch as int")
    if not 1 <= value < 2**42 - 16:
        raise InvalidArgumentError(f"{name} is {value}; give milliseconds since the epoch, 1 to {2**42 - 17}")
    return value
