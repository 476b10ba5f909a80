"""Transactions of a broker: taken over, decided, carried out, and finished for owners that died or took too long.

Commit: flush; decide (with the group offsets, under the groups' lock, so that no partition of a group changes hands in
between); a marker in every partition. A crash before the decision aborts, after it commits: any process does the rest.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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
        self._known: dict[Path, TransactionRecord] = {}

    def take_over(self, transactional_id: str, timeout_ms: int) -> tuple[TransactionRecord, int]:
        """The record of an id and its new epoch; whoever had it is fenced, and what it left is finished."""
        record = TransactionRecord(record_path(self._broker.path, transactional_id), self._broker._incarnation)
        token = self._broker._keeper.token()
        with record.lock():
            self._abandon(record)
            return record, record.take(token, timeout_ms)

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
        for record in self.records():
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

    def records(self) -> list[TransactionRecord]:
        """The records of all transactional ids."""
        paths = sorted((self._broker.path / "transactions").glob("*" + SUFFIX))
        self._known = {
            path: self._known.get(path) or TransactionRecord(path, self._broker._incarnation) for path in paths
        }
        return list(self._known.values())

    def resolve(self) -> None:
        """Finish what dead owners decided, abort what they left open, and what takes longer than it may."""
        now_ms = self._broker.clock.time_ms()
        for record in self.records():
            try:
                if record.state != EMPTY:
                    self._resolve(record, now_ms)
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
