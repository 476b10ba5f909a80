"""Looking at groups and changing them from outside: list, describe, reset offsets, delete, expire."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock._native.records import RecordCursor
from penstock.errors import (
    GroupNotEmptyError,
    InvalidArgumentError,
    InvalidTypeError,
    OffsetOutOfRangeError,
    UnknownGroupError,
)
from penstock.streams.membership import check_group_name, committed_offset
from penstock.streams.target_offset import target_offset
from penstock.streams.topic_partition import TopicPartition
from penstock.streams.unread import Unread, unread

if TYPE_CHECKING:
    from penstock.storage.partition_log import PartitionLog
    from penstock.streams.broker import Broker

OFFSETS_RETENTION_MS = 7 * 86_400_000


@dataclass(frozen=True, slots=True)
class MemberDescription:
    """A member of a group."""

    member_id: str
    client_id: str
    group_instance_id: str | None
    pid: int | None
    """Its process; None while a static member is away."""
    topics: list[str]
    partitions: list[TopicPartition]


@dataclass(frozen=True, slots=True)
class GroupPartition:
    """A partition as a group sees it."""

    topic: str
    partition: int
    committed: int | None
    """Committed offset; None when there is none."""
    metadata: str
    log_end_offset: int
    lag: int
    """Records stored and not yet committed; for readers of committed records, those that are decided."""
    lag_ms: int
    """How long ago the next record to read was stored; 0 when there is none."""
    member_id: str | None
    """Who reads it now."""


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """A consumer group: who is in it and how far it is."""

    name: str
    state: str
    """"empty", "rebalancing" (a partition is on its way to another member) or "stable"."""
    generation: int
    partition_assignment_strategy: str
    members: list[MemberDescription]
    partitions: list[GroupPartition]

    @property
    def lag(self) -> int:
        """Records of all partitions that are stored and not yet committed."""
        return sum(partition.lag for partition in self.partitions)


class GroupAdmin:
    """The groups of a broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._store = broker._groups

    def names(self) -> list[str]:
        """Names of the groups, sorted."""
        return [name for (name,) in self._store.rows("SELECT name FROM groups ORDER BY name")]

    def describe(self, name: str) -> GroupDescription:
        """Members, partitions and lag, or `UnknownGroupError`."""
        group_id = self._existing(name)
        with self._store.change():
            generation, strategy, stale = self._store.rows(
                "SELECT generation, strategy, stale FROM groups WHERE id = ?", group_id
            )[0]
            members = self._store.rows(
                "SELECT id, client_id, instance_id, pid, topics FROM members LEFT JOIN processes ON token = process"
                " WHERE group_id = ? ORDER BY number", group_id,
            )  # fmt: skip
            rows = self._store.rows(
                "SELECT topic, number, owner, target FROM partitions WHERE group_id = ? ORDER BY topic, number",
                group_id,
            )
            committed_only = self._store.reads_committed(group_id)
        owned: dict[str, list[TopicPartition]] = {}
        for topic, number, owner, _ in rows:
            owned.setdefault(owner, []).append(TopicPartition(topic, number))
        moving = stale or any(owner != target for _, _, owner, target in rows)
        return GroupDescription(
            name,
            "empty" if not members else "rebalancing" if moving else "stable",
            generation,
            strategy,
            [
                MemberDescription(member, client, instance, pid, json.loads(topics), owned.get(member, []))
                for member, client, instance, pid, topics in members
            ],
            [
                self._partition(name, TopicPartition(topic, number), owner, committed_only)
                for topic, number, owner, _ in rows
                if topic in self._broker._configs()  # another process may be deleting one
            ],
        )

    def _partition(self, group: str, place: TopicPartition, owner: str | None, committed_only: bool) -> GroupPartition:
        log = self._broker._log(*place)
        found = committed_offset(self._broker, group, place)
        end = log.log_end_offset
        left, stored_ms = _oldest_unread(log, -1 if found is None else found.offset, committed_only)
        lag_ms = max(0, self._broker.clock.time_ms() - stored_ms) if left.records else 0
        return GroupPartition(
            *place,
            committed=None if found is None else found.offset,
            metadata="" if found is None else found.metadata,
            log_end_offset=end,
            lag=left.records,
            lag_ms=lag_ms,
            member_id=owner,
        )

    def delete(self, name: str) -> None:
        """Remove a group without members, and its offsets. Raises `UnknownGroupError`, `GroupNotEmptyError`."""
        group_id = self._existing(name)
        with self._store.change() as connection:
            count = self._store.rows("SELECT count(*) FROM members WHERE group_id = ?", group_id)[0][0]
            if count:
                raise GroupNotEmptyError(f"group {name!r} has {count} members; close them first")
            for (cell,) in self._store.rows("SELECT cell FROM partitions WHERE group_id = ?", group_id):
                self._store.commits.reset(cell, -1)
            connection.execute("DELETE FROM groups WHERE id = ?", (group_id,))
        if self._broker._metrics_store is not None:
            self._broker._metrics_store.retire(self._broker.clock.time_ms(), group=name)

    def expire(self) -> list[str]:
        """Delete the groups that nobody used for seven days (Kafka's `offsets.retention.minutes`); their names."""
        limit = self._broker.clock.time_ms() - OFFSETS_RETENTION_MS
        query = (
            "SELECT name FROM groups WHERE emptied_ms < ? AND id NOT IN (SELECT group_id FROM members)"
            " AND id NOT IN (SELECT group_id FROM attached)"
        )
        if not self._store.rows(query, limit):
            return []
        with self._store.change():
            gone = [name for (name,) in self._store.rows(query, limit)]
            for name in gone:
                self.delete(name)
        return gone

    def reset(
        self, name: str, topic: str, to: Any, shift_by: int | None, partitions: list[int] | None, dry_run: bool
    ) -> dict[TopicPartition, int]:
        """See `Broker.reset_offsets`."""
        check_group_name(name)
        if (to is None) == (shift_by is None):
            raise InvalidArgumentError(f"to is {to!r} and shift_by is {shift_by!r}; give exactly one of them")
        count = self._broker._topic_config(topic).partitions
        chosen = range(count) if partitions is None else partitions
        places = [TopicPartition(topic, number) for number in chosen]
        offsets = {}
        for place in places:
            log = self._broker._log(*place)
            wanted = (
                self._shifted(name, place, log, shift_by)
                if shift_by is not None
                else target_offset("to", to, log, self._broker.clock)
            )
            offsets[place] = min(max(wanted, log.log_start_offset), log.log_end_offset)
        if not dry_run:
            self._move(name, offsets)
        return offsets

    def _shifted(self, name: str, place: TopicPartition, log: PartitionLog, shift_by: Any) -> int:
        if isinstance(shift_by, bool) or not isinstance(shift_by, int):
            raise InvalidTypeError(f"shift_by is {shift_by!r}; give an int, negative to go back")
        found = committed_offset(self._broker, name, place)
        return (log.log_start_offset if found is None else found.offset) + shift_by

    def _move(self, name: str, offsets: dict[TopicPartition, int]) -> None:
        with self._store.change() as connection:
            group_id = self._store.group_id(name, self._broker.clock.time_ms())
            for place, offset in offsets.items():
                cell = self._store.cell(group_id, *place)
                self._store.commits.reset(cell, offset)
                owner = self._store.rows("SELECT owner FROM partitions WHERE cell = ?", cell)[0][0]
                connection.execute("UPDATE partitions SET owner = NULL WHERE cell = ?", (cell,))
                self._store.bump_member(owner)
            connection.execute(
                "UPDATE groups SET emptied_ms = ? WHERE id = ?", (self._broker.clock.time_ms(), group_id)
            )
        self._broker._bell.ring()
        if self._broker.fsync == "always":
            self._store.sync()

    def _existing(self, name: str) -> int:
        group_id = self._store.find_group(check_group_name(name))
        if group_id is None:
            raise UnknownGroupError(f"group {name!r} does not exist")
        return group_id


def _oldest_unread(log: PartitionLog, position: int, committed_only: bool) -> tuple[Unread, int]:
    """What is unread, and the timestamp of the first of it (0 when nothing is)."""
    while True:
        left = unread(log, position, committed_only)
        try:
            return left, record_timestamp_ms(log, left.offset) if left.records else 0
        except OffsetOutOfRangeError:
            if log.log_start_offset <= left.offset:
                raise
            # removed at this moment: what is left begins later


def record_timestamp_ms(log: PartitionLog, offset: int) -> int:
    """Timestamp of the record at `offset`, or of the next there is."""
    region = log.fetch(offset, 1)
    cursor = RecordCursor(log.topic, log.number)
    if region is not None:
        cursor.feed(region, offset)
        record = cursor.next_record()
        if record is not None:
            return int(record.timestamp_ms)
    return 1 << 62
