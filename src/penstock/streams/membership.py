"""One consumer's place in a group: joins, learns what it may read, gives back what it has to, commits."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.errors import (
    FencedError,
    InvalidArgumentError,
    InvalidConfigError,
    InvalidNameError,
    InvalidTypeError,
)
from penstock.streams.assignors import Assignor, find_assignor
from penstock.streams.group_coordination import (
    make_stale,
    park_member,
    rebalance,
    release_partitions,
    remove_member,
    tell,
)
from penstock.streams.topic_partition import OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from penstock.streams.broker import Broker


NAME_MAX = 249
Listener = Callable[[list[TopicPartition]], object]


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """How a consumer takes part in its group."""

    group: str
    strategy: str | Assignor
    instance_id: str | None
    client_id: str
    session_timeout_ms: int
    max_poll_interval_ms: int
    committed_only: bool
    """Whether it reads committed records only; then so is the lag of the group counted."""

    def checked(self) -> GroupSettings:
        """This, if the names are fit to be stored."""
        for name, value in (("client_id", self.client_id), ("group_instance_id", self.instance_id)):
            if value is not None and (not isinstance(value, str) or not 1 <= len(value) <= NAME_MAX):
                raise InvalidArgumentError(f"{name} is {value!r}; give 1 to {NAME_MAX} characters")
        return self


def check_group_name(name: Any) -> str:
    """A group's name: any text of 1 to 249 characters; `InvalidNameError` otherwise."""
    if not isinstance(name, str):
        raise InvalidTypeError(f"group is {name!r}; give a str")
    if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise InvalidNameError(f"group is {name!r}; give 1 to {NAME_MAX} printable characters")
    return name


@dataclass(frozen=True, slots=True)
class Claim:
    """A partition that this member owns: the cell of its committed offset, and the right to write there."""

    partition: TopicPartition
    cell: int
    claim: int
    committed: int
    """Committed offset, -1 when there is none."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a member has to do: give up `revoked`, or was made to give up `lost`."""

    revoked: list[TopicPartition]
    lost: list[TopicPartition]


class Membership:
    """Made by a consumer with a group. Used by the consumer's thread; `evict` by the keeper's.

    Raises `FencedError` when another live member has the same `group_instance_id`, `InvalidConfigError` when the group
    uses another assignment strategy.
    """

    def __init__(
        self, broker: Broker, settings: GroupSettings, topics: Iterable[str], progress: Callable[[], object]
    ) -> None:
        self.progress = progress
        self._broker = broker
        self._store = broker._groups
        self.settings = settings
        self.group = settings.group
        self._strategy, self._assignor = find_assignor(settings.strategy)
        self.owned: dict[TopicPartition, Claim] = {}
        self._join(tuple(topics))

    def _join(self, topics: tuple[str, ...]) -> None:
        settings, now_ms = self.settings, self._broker.clock.time_ms()
        process = self._broker._keeper.token()
        self.topics = topics
        with self._store.change() as connection:
            group_id = self._group_id = self._store.group_id(settings.group, now_ms)
            others = connection.execute("SELECT count(*) FROM members WHERE group_id = ?", (group_id,)).fetchone()[0]
            strategy = connection.execute("SELECT strategy FROM groups WHERE id = ?", (group_id,)).fetchone()[0]
            if others and strategy != self._strategy:
                raise InvalidConfigError(
                    f"partition_assignment_strategy is {self._strategy!r}; group {settings.group!r} uses {strategy!r}"
                )
            held = connection.execute(
                "SELECT id, process, slot FROM members WHERE group_id = ? AND instance_id = ?",
                (group_id, settings.instance_id),
            ).fetchone()
            if held is not None:
                self._take_over(held[0], held[1], held[2], process)
            else:
                self.member_id = f"{settings.client_id}-{uuid.uuid4()}"
                self.slot = self._store.take_slot()
                connection.execute(
                    "INSERT INTO members"
                    " (id, group_id, process, slot, client_id, instance_id, topics, session_timeout_ms)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        self.member_id, group_id, process, self.slot, settings.client_id, settings.instance_id,
                        json.dumps(topics), settings.session_timeout_ms,
                    ),
                )  # fmt: skip
                connection.execute("UPDATE groups SET strategy = ?, stale = 1 WHERE id = ?", (self._strategy, group_id))
            self._store.set_reads_committed(group_id, settings.committed_only)
            self.epoch = self._store.epoch(self.slot) - 1  # whatever it is: look first
        self._broker._keeper.add(self)

    def _take_over(self, member_id: str, holder: str | None, slot: int, process: str) -> None:
        """This static member was here before: its partitions are still its own, with new claims."""
        if holder is not None and self._broker._keeper.is_alive(holder):
            raise FencedError(
                f"group_instance_id is {self.settings.instance_id!r}; member {member_id!r} of group "
                f"{self.group!r} has it and is alive"
            )
        with self._store.change() as connection:
            self.member_id, self.slot = member_id, slot
            release_partitions(self._store, connection, member_id)
            connection.execute(
                "UPDATE members SET process = ?, left_ms = NULL, topics = ? WHERE id = ?",
                (process, json.dumps(self.topics), member_id),
            )
            connection.execute("UPDATE groups SET stale = 1 WHERE id = ?", (self._group_id,))

    # --- partitions --------------------------------------------------------------------------------------------------

    @property
    def stale(self) -> bool:
        """Whether somebody asked this member to look."""
        return self._store.epoch(self.slot) != self.epoch

    def look(self) -> Change | None:
        """What has to be given up now; None when this member is not in the group any more."""
        with self._store.change() as connection:
            self.epoch = self._store.epoch(self.slot)
            row = connection.execute(
                "SELECT stale FROM members JOIN groups ON groups.id = group_id WHERE members.id = ?", (self.member_id,)
            ).fetchone()
            if row is None:
                return None
            if row[0]:
                self._rebalance()
                self.epoch = self._store.epoch(self.slot)
            mine = connection.execute(
                "SELECT topic, number, target FROM partitions WHERE owner = ?", (self.member_id,)
            ).fetchall()
        kept = {TopicPartition(topic, number): target for topic, number, target in mine}
        commits = self._store.commits
        lost = [p for p, claim in self.owned.items() if p not in kept or commits.claim_of(claim.cell) != claim.claim]
        revoked = [place for place in self.owned if place not in lost and kept[place] != self.member_id]
        return Change(revoked, lost)

    def _rebalance(self) -> None:
        counts = {name: config.partitions for name, config in self._broker._configs().items()}
        with self._store.change() as connection:
            rebalance(self._store, connection, self._group_id, counts, self._assignor)
        self._broker._bell.ring()

    def give_up(self, partitions: Iterable[TopicPartition]) -> None:
        """Let others have these partitions of mine."""
        claims = [self.owned[partition] for partition in partitions if partition in self.owned]
        if not claims:
            return
        with self._store.change() as connection:
            heirs: set[str | None] = set()
            for claim in claims:
                place = (self._group_id, claim.partition.topic, claim.partition.partition)
                row = connection.execute(
                    "SELECT owner, target FROM partitions WHERE group_id = ? AND topic = ? AND number = ?", place
                ).fetchone()
                if row is None or row[0] != self.member_id:
                    continue
                self._store.commits.fence(claim.cell)
                connection.execute(
                    "UPDATE partitions SET owner = NULL WHERE group_id = ? AND topic = ? AND number = ?", place
                )
                heirs.add(row[1])
            tell(self._store, connection, self._group_id, heirs)
        self.forget(claim.partition for claim in claims)
        self._broker._bell.ring()

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These are not mine any more; whoever took them saw to the rest."""
        for partition in partitions:
            self.owned.pop(partition, None)

    def claim_targets(self) -> list[Claim]:
        """Take the partitions that are meant for this member and that nobody has (any more)."""
        taken = []
        with self._store.change() as connection:
            rows = connection.execute(
                "SELECT topic, number, cell, owner FROM partitions WHERE target = ?", (self.member_id,)
            ).fetchall()
            for topic, number, cell, owner in rows:
                partition = TopicPartition(topic, number)
                if partition in self.owned or owner not in (None, self.member_id):
                    continue
                connection.execute(
                    "UPDATE partitions SET owner = ? WHERE group_id = ? AND topic = ? AND number = ?",
                    (self.member_id, self._group_id, topic, number),
                )
                claim = self._store.commits.fence(cell)
                taken.append(Claim(partition, cell, claim, self._store.commits.offset(cell)))
        self.owned.update({claim.partition: claim for claim in taken})
        return taken

    def subscribe(self, topics: Iterable[str]) -> None:
        """The member wants these topics now."""
        wanted = tuple(topics)
        with self._store.change() as connection:
            connection.execute("UPDATE members SET topics = ? WHERE id = ?", (json.dumps(wanted), self.member_id))
            make_stale(self._store, connection, self._group_id)
        self.topics = wanted

    def follow(self, topics: Iterable[str]) -> None:
        """The catalog changed, and these are the topics that the member wants now. Nothing happens unless they, or
        their partitions, are others than those of the last assignment."""
        wanted = tuple(topics)
        configs, assigned = self._broker._configs(), self._store.counts(self._group_id)
        counts = {name: configs[name].partitions for name in wanted if name in configs}
        if set(wanted) != set(self.topics) or any(counts.get(name) != assigned.get(name) for name in wanted):
            self.subscribe(wanted)

    # --- leaving -----------------------------------------------------------------------------------------------------

    def rejoin(self) -> None:
        """Become a new member, after this one was removed."""
        self._broker._keeper.discard(self)
        self.owned = {}
        self._join(self.topics)

    def leave(self) -> None:
        """Give everything up. A static member's partitions wait for its return."""
        now_ms = self._broker.clock.time_ms()
        with self._store.change() as connection:
            if self.settings.instance_id is None:
                remove_member(self._store, connection, self.member_id, now_ms)
            else:
                release_partitions(self._store, connection, self.member_id)
                park_member(connection, self.member_id, now_ms)
        self._broker._keeper.discard(self)
        self.owned = {}
        self._broker._bell.ring()

    def evict(self) -> None:
        """Remove the member although it did not leave: it did not poll in time."""
        with self._store.change() as connection:
            remove_member(self._store, connection, self.member_id, self._broker.clock.time_ms())
        self._broker._bell.ring()


def committed_offset(broker: Broker, group: str, partition: TopicPartition) -> OffsetAndMetadata | None:
    """Committed offset and metadata of a partition, or None."""
    store = broker._groups
    rows = store.rows(
        "SELECT cell, metadata, metadata_offset FROM partitions JOIN groups ON groups.id = group_id"
        " WHERE name = ? AND topic = ? AND number = ?",
        group, *partition,
    )  # fmt: skip
    if not rows:
        return None
    cell, metadata, metadata_offset = rows[0]
    offset = store.commits.offset(cell)
    if offset < 0:
        return None
    return OffsetAndMetadata(offset, metadata if metadata is not None and metadata_offset == offset else "")
