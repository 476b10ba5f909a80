"""Deduplication of messages by id (SQS FIFO): what was sent within the window is remembered, in all processes.

The id is a header of the stored message, and the table in SQLite is an index over the log: whoever sends first takes
in what was stored since, in the same transaction. So a death between storing and remembering neither loses nor
repeats a message.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from penstock.queues.arguments import checked_text
from penstock.queues.dead_letter import Headers, header
from penstock.streams.topic_partition import TopicPartition

if TYPE_CHECKING:
    import sqlite3

    from penstock._native.message import Message
    from penstock.queues.broker import Broker
    from penstock.queues.queue import Queue

DEDUPLICATION_HEADER = "penstock.deduplication-id"
ATTEMPT_WINDOW_MS = 300_000


def content_id(value: Any) -> str:
    """The id of a message whose queue deduplicates by content: the SHA-256 of its body."""
    return hashlib.sha256(value).hexdigest()


class Deduplication:
    """The ids that a queue remembers."""

    def __init__(self, broker: Broker, queue: Queue) -> None:
        self._broker = broker
        self._queue = queue

    def send(
        self, identity: str, value: Any, key: bytes | None, headers: Headers, partition: int, dropped: list[Message]
    ) -> tuple[int, int]:
        """Store a message unless its id is remembered; partition and offset of the one or the other. `dropped`: see
        `Queue._store`."""
        checked_text("deduplication_id", identity)
        name, now = self._queue.name, self._broker.clock.time_ms()
        window = self._queue._config.deduplication_window * 1000
        scope = self._scope(key)
        with self._broker._queues.transaction() as connection:
            end = self._take_in(connection, partition, now - window)
            row = connection.execute(
                "SELECT partition, offset, sent_ms FROM remembered WHERE queue = ? AND scope = ? AND id = ?",
                (name, scope, identity),
            ).fetchone()
            if row is not None and row[2] + window > now:
                return int(row[0]), int(row[1])
            marked = [*headers, (DEDUPLICATION_HEADER, identity.encode())]
            offset = self._queue._store(value, key, marked, partition, dropped)
            self._remember(connection, scope, identity, partition, offset, now)
            if offset == end:
                self._set_taken_in(connection, partition, end + 1)
            connection.execute("DELETE FROM remembered WHERE queue = ? AND sent_ms <= ?", (name, now - window))
        return partition, offset

    def _scope(self, key: bytes | None) -> str:
        if self._queue._config.deduplication_scope == "queue" or key is None:
            return ""
        return key.decode("utf-8", "surrogateescape")

    def _remember(
        self, connection: sqlite3.Connection, scope: str, identity: str, partition: int, offset: int, sent_ms: int
    ) -> None:
        connection.execute(
            "INSERT INTO remembered VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "partition = excluded.partition, offset = excluded.offset, sent_ms = excluded.sent_ms",
            (self._queue.name, scope, identity, partition, offset, sent_ms),
        )

    def _set_taken_in(self, connection: sqlite3.Connection, partition: int, offset: int) -> None:
        connection.execute(
            "INSERT INTO taken_in VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET offset = excluded.offset",
            (self._queue.name, partition, offset),
        )

    def _take_in(self, connection: sqlite3.Connection, partition: int, since_ms: float) -> int:
        """Remember what was stored since the last look; the log's end now."""
        log = self._broker._log(self._queue.name, partition)
        row = connection.execute(
            "SELECT offset FROM taken_in WHERE queue = ? AND partition = ?", (self._queue.name, partition)
        ).fetchone()
        end = int(log.log_end_offset)
        begin = int(row[0]) if row is not None else 0
        if begin == end:
            return end
        if row is None or begin > end:  # never looked, or the log lost its end in a power cut
            found = log.offset_for_timestamp(max(0, int(since_ms)))
            begin = end if found is None else int(found[0])
        begin = max(begin, log.log_start_offset)
        place = TopicPartition(self._queue.name, partition)
        with self._broker.consumer() as consumer:
            consumer.assign([place])
            consumer.seek(place, begin)
            while consumer.position(place) < end and (records := consumer.poll(timeout=0)):
                for record in records:
                    identity = header(record.headers, DEDUPLICATION_HEADER)
                    if identity is not None:
                        scope = self._scope(record.key)
                        self._remember(connection, scope, identity, partition, record.offset, record.timestamp_ms)
            end = max(end, consumer.position(place))
        self._set_taken_in(connection, partition, end)
        return end

    # --- receive attempts ------------------------------------------------------------------------------------------

    def attempt(self, attempt_id: str) -> list[tuple[int, int, int]]:
        """(partition, offset, receipt) of what was received with this id; [] when nothing was."""
        rows = self._broker._queues.read(
            "SELECT receipts FROM attempts WHERE queue = ? AND id = ? AND made_ms > ?",
            self._queue.name, attempt_id, self._broker.clock.time_ms() - ATTEMPT_WINDOW_MS,
        )  # fmt: skip
        return [tuple(receipt) for receipt in json.loads(rows[0][0])] if rows else []

    def remember_attempt(self, attempt_id: str, receipts: list[tuple[int, int, int]]) -> None:
        """What was received with this id."""
        now = self._broker.clock.time_ms()
        with self._broker._queues.transaction() as connection:
            connection.execute(
                "DELETE FROM attempts WHERE queue = ? AND made_ms <= ?", (self._queue.name, now - ATTEMPT_WINDOW_MS)
            )
            connection.execute(
                "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?)",
                (self._queue.name, attempt_id, json.dumps(receipts), now),
            )
