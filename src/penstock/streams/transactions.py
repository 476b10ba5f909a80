"""Transactions of a broker: taken over, decided, carried out, and finished for owners that died or took too long.

Commit: flush; decide (with the group offsets, under the groups' lock, so that no partition of a group changes hands in
between); a marker in every partition. A crash before the decision aborts, after it commits: any process does the rest.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from penstock._native.partition import begin_transactions, commit_transactions
from penstock.errors import CorruptionError, FencedError, InvalidArgumentError, UnknownTopicError
from penstock.storage.control_batch import end_marker
from penstock.storage.group_store import PENDING_WORD
from penstock.storage.transaction_record import (
    ABORTED,
    COMMITTED,
    EMPTY,
    ONGOING,
    STATE,
    SUFFIX,
    TransactionRecord,
    record_path,
)
from penstock.streams.topic_partition import TopicPartition

if TYPE_CHECKING:
    from penstock.storage.partition_log import PartitionLog
    from penstock.streams.broker import Broker

STATES = {EMPTY: "none", ONGOING: "ongoing", COMMITTED: "committing", ABORTED: "aborting"}
Offsets = list[tuple[int, int, int]]  # cell, claim, offset
ID_RETENTION_MS = 7 * 86_400_000
EXPIRE_EVERY_MS = 3_600_000
_log = logging.getLogger("penstock.transactions")


@dataclass(frozen=True, slots=True)
class TransactionDescription:
    """A transactional producer and its open transaction."""

    transactional_id: str
    producer_id: int
    epoch: int
    state: str
    """"none", "ongoing", "committing" or "aborting"."""
    age_ms: int
    """How long the transaction has been open."""
    partitions: list[TopicPartition]


class Transactions:
    """What `Producer` and the keeper ask for."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._store = broker._groups
        self._store.finish_pending = self.apply_pending
        self._known: dict[str, TransactionRecord] = {}
        self._expired_ms = 0

    def take_over(self, transactional_id: str, timeout_ms: int) -> tuple[TransactionRecord, int, str]:
        """The record of an id, its new epoch, and the name of this holder for `give_back`. Whoever had the id is
        fenced, what it left is finished."""
        token, holder = self._broker._keeper.token(), uuid.uuid4().hex
        path = record_path(self._broker.path, transactional_id)
        with self._store.change() as connection:  # from here on somebody looks after the record
            connection.execute("INSERT OR REPLACE INTO transactional VALUES (?, ?, ?)", (path.stem, holder, token))
        record = TransactionRecord(path, self._broker._incarnation)
        with record.lock():
            self._abandon(record)
            return record, record.take(token, timeout_ms, self._broker.clock.time_ms()), holder

    def give_back(self, record: TransactionRecord, holder: str) -> None:
        """The holder ends; nobody needs to look after the record any more, if nothing of it is left to be done."""
        if holder and record.state == EMPTY:
            with self._store.change() as connection:
                connection.execute(
                    "DELETE FROM transactional WHERE name = ? AND holder = ?", (record.path.stem, holder)
                )

    def enlist(self, record: TransactionRecord, epoch: int, logs: list[PartitionLog]) -> None:
        """The transaction is about to store in these partitions. Raises `FencedError`."""
        with record.lock():
            if not record.is_open(epoch):
                record.refuse(epoch)
            record.add_partitions(b"".join([log.entry for log in logs]))
            if self._broker.fsync == "always":
                record.words.sync()
            begin_transactions(logs, record.producer_id)

    def commit(self, record: TransactionRecord, epoch: int, offsets: Offsets, logs: list[PartitionLog]) -> None:
        """Decide, and carry it out. Raises `FencedError` when the epoch is over or a partition of the group moved."""
        if offsets:
            with self._store.exclusive:
                self._check_claims(offsets)
                record.set_offsets(offsets)
                self._store.slots.set(PENDING_WORD, 1)
                self._decide(record, epoch)
                self._apply(record, offsets)
                self._store.slots.set(PENDING_WORD, 0)
        else:
            self._decide(record, epoch)
        self._carry_out_soon(record, epoch, True, logs)

    def _carry_out_soon(
        self, record: TransactionRecord, epoch: int, committed: bool, logs: list[PartitionLog] | None
    ) -> None:
        """What is decided is so, even if the markers cannot be written now; then the keeper tries again."""
        try:
            with record.lock():
                self._carry_out(record, epoch, committed, logs)
        except OSError:
            _log.exception("the markers of transaction %r will be written later", record.path.stem)

    def settle(self, record: TransactionRecord, epoch: int) -> None:
        """Carry out what is left of the owner's transaction before (ongoing: a call was interrupted). Raises what that
        raises."""
        if record.state == EMPTY:
            return
        with record.lock():
            if record.epoch == epoch:
                record.decide(epoch, ABORTED)
                self._carry_out(record, epoch, record.state == COMMITTED)

    def _check_claims(self, offsets: Offsets) -> None:
        commits = self._store.commits
        moved = [cell for cell, claim, _ in offsets if commits.claim_of(cell) != claim]
        if moved:
            raise FencedError(
                f"{len(moved)} of {len(offsets)} partitions of the group moved to another member; abort the transaction"
            )

    def _decide(self, record: TransactionRecord, epoch: int) -> None:
        if not record.decide(epoch, COMMITTED) and not record.is_committed(epoch):
            record.offsets_applied()
            record.refuse(epoch)
        if self._broker.fsync == "always":
            record.words.sync()

    def abort(self, record: TransactionRecord, epoch: int) -> None:
        """Decide against it. An epoch that is over was aborted by whoever ended it."""
        if record.decide(epoch, ABORTED):
            self._carry_out_soon(record, epoch, False, None)  # all in the record: enlisting may have failed half-way

    def apply_pending(self) -> None:
        """Apply decided group offsets whose owner did not come to it. Under the groups' lock."""
        if not self._store.slots.get(PENDING_WORD):
            return
        for _, record, _ in self._held():
            if record.state == COMMITTED:
                self._apply(record, record.offsets())
        self._store.slots.set(PENDING_WORD, 0)

    def _apply(self, record: TransactionRecord, offsets: Offsets) -> None:
        commit = self._store.commits.commit
        for cell, claim, offset in offsets:
            commit(cell, claim, offset)
        if self._broker.fsync == "always":
            self._store.sync()
        record.offsets_applied()

    def _carry_out(
        self,
        record: TransactionRecord,
        epoch: int,
        committed: bool,
        logs: list[PartitionLog] | None = None,
        producer_id: int | None = None,
    ) -> None:
        """A marker in every partition (`logs`: if the caller has them), then ready again. Needs the record's lock.

        `producer_id`: whose it was, when the record has a new one.
        """
        if record.state not in (COMMITTED, ABORTED):
            return  # somebody else carried it out while this one waited for the lock
        number = record.producer_id if producer_id is None else producer_id
        marker = end_marker(number, epoch, committed, self._broker.clock.time_ms())
        if committed and logs is not None:
            logs = logs[commit_transactions(logs, number, marker) :]
        left = self._logs(record) if logs is None else iter(logs)
        for log in left:
            with contextlib.suppress(UnknownTopicError):  # deleted meanwhile, with what was in it
                log.end_transaction(number, marker, committed)
        record.finish()

    def _logs(self, record: TransactionRecord) -> Iterator[PartitionLog]:
        for topic, number in record.partitions():
            with contextlib.suppress(UnknownTopicError):
                yield self._broker._log(topic, number)

    # --- for owners that are gone ------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In the child: locks of its own."""
        self._known = {}

    def records(self) -> Iterator[TransactionRecord]:
        """The records of all transactional ids, by name."""
        for path in sorted((self._broker.path / "transactions").glob("*" + SUFFIX)):
            yield TransactionRecord(path, self._broker._incarnation)

    def _held(self) -> list[tuple[str, TransactionRecord, str]]:
        """(holder, record, process) of the ids that somebody has, or died with."""
        rows = self._store.rows("SELECT name, holder, process FROM transactional")
        known, self._known = self._known, {}
        for name, holder, _ in rows:
            path = self._broker.path / "transactions" / (name + SUFFIX)
            if path.exists():  # not yet, when its owner is just about to make it
                self._known[holder] = known.get(holder) or TransactionRecord(path, self._broker._incarnation)
        return [(holder, self._known[holder], process) for _, holder, process in rows if holder in self._known]

    def expire(self) -> None:
        """Forget the ids that nobody used for seven days (Kafka's `transactional.id.expiration.ms`)."""
        now_ms = self._broker.clock.time_ms()
        if abs(now_ms - self._expired_ms) < EXPIRE_EVERY_MS:
            return
        self._expired_ms = now_ms
        for record in self.records():
            if now_ms - record.started_ms <= ID_RETENTION_MS:
                continue
            with self._store.change():  # who takes the id over says so first, in here
                held = self._store.rows("SELECT 1 FROM transactional WHERE name = ?", record.path.stem)
                if not held and record.words.get(STATE) & 0xFF == EMPTY:
                    record.path.unlink(missing_ok=True)

    def resolve(self) -> None:
        """Finish what dead owners decided, abort what they left open, and what takes longer than it may."""
        now_ms = self._broker.clock.time_ms()
        for holder, record, process in self._held():
            try:
                if record.state != EMPTY:
                    self._resolve(record, now_ms)
                if record.state == EMPTY and not self._broker._keeper.is_alive(process):
                    self.give_back(record, holder)
            except CorruptionError:
                _log.exception("transaction %r cannot be finished", record.path.stem)

    def _resolve(self, record: TransactionRecord, now_ms: int) -> None:
        if self._is_cared_for(record, now_ms):
            return
        with record.lock():
            if self._is_cared_for(record, now_ms):
                return  # somebody else finished it, and perhaps began another one, while this one waited for the lock
            if record.state != ONGOING and self._broker._keeper.is_alive(record.owner):
                self._carry_out(record, record.epoch, record.state == COMMITTED)
                return
            _log.warning("transaction %r of a dead or slow owner is finished", record.path.stem)
            self._abandon(record)

    def _is_cared_for(self, record: TransactionRecord, now_ms: int) -> bool:
        """Nothing is open, or its owner lives and may still take its time."""
        if record.state != ONGOING:
            return record.state == EMPTY
        return self._broker._keeper.is_alive(record.owner) and now_ms - record.started_ms <= record.timeout_ms

    def abort_hanging(self, transactional_id: str) -> bool:
        """Abort the open transaction of an id and fence its owner; False when there is none."""
        path = record_path(self._broker.path, transactional_id)
        if not path.exists():
            raise InvalidArgumentError(f"transactional_id is {transactional_id!r}; there is none of that name")
        record = TransactionRecord(path, self._broker._incarnation)
        with record.lock():
            if record.state == EMPTY:
                return False
            self._abandon(record)
        return True

    def _abandon(self, record: TransactionRecord) -> None:
        """Fence the owner; roll what is decided forward and what is not back. Needs the record's lock."""
        if record.state == EMPTY:
            return
        before, producer_id = record.epoch, record.producer_id
        record.decide(before, ABORTED)
        if record.state == COMMITTED:
            with self._store.exclusive:
                self.apply_pending()
            self._carry_out(record, before, committed=True)
        else:
            epoch = max(before, record.fence())  # when epochs begin again, that of the last one
            self._carry_out(record, epoch, committed=False, producer_id=producer_id)

    def describe(self) -> list[TransactionDescription]:
        """Every transactional id, sorted."""
        now_ms = self._broker.clock.time_ms()
        return [
            TransactionDescription(
                unquote(record.path.stem),
                record.producer_id,
                record.epoch,
                STATES[record.state],
                0 if record.state == EMPTY else now_ms - record.started_ms,
                [TopicPartition(*place) for place in dict.fromkeys(record.partitions())],
            )
            for record in self.records()
        ]
