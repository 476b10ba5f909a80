"""How a consumer takes part in a group: between two deliveries it gives up what it has to and takes what it may.

A rebalance is incremental: a member gives up only partitions that go to somebody else, and takes a partition only when
nobody has it, so the others read on all the while (Kafka's cooperative protocol, for every strategy).
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock._native.metrics import GROUP, WORDS
from penstock.errors import FencedError, InvalidTypeError, PenstockError
from penstock.storage.group_store import EPOCH
from penstock.streams.membership import GroupSettings, Listener, Membership, committed_offset
from penstock.streams.topic_partition import OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from penstock._native.fetcher import PartitionReader
    from penstock.streams.consumer import Consumer

COMMITS, REFUSED = WORDS[GROUP]["commits"], WORDS[GROUP]["refused"]


@dataclass(frozen=True, slots=True)
class Listeners:
    """What the program wants to be told of rebalances."""

    on_assigned: Listener | None
    on_revoked: Listener | None
    on_lost: Listener | None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise InvalidTypeError(f"{name} is {value!r}; give a function of a list of TopicPartition")


class GroupPart:
    """The group half of a consumer. Used by the consumer's thread, except `leave`."""

    def __init__(self, consumer: Consumer, settings: GroupSettings, auto_commit: bool, listeners: Listeners) -> None:
        self._consumer = weakref.proxy(consumer)
        self._reference = weakref.ref(consumer)
        self._broker = consumer._broker
        self.settings = settings
        self.auto_commit = auto_commit
        self._listeners = listeners
        self._member: Membership | None = None
        self._attachment: str | None = None
        self._rebalancing = False
        self.untouched = True
        store = self._broker._metrics_store
        now_ms = self._broker.clock.time_ms()
        self._counters = None if store is None else store.group(settings.group, now_ms)
        consumer._commit_to(self._broker._groups.commits, auto_commit, self._counters)

    @property
    def member_id(self) -> str | None:
        """The member's name, while there is one."""
        return None if self._member is None else self._member.member_id

    def owns(self, partition: TopicPartition) -> bool:
        """Whether the member has that partition."""
        return self._member is not None and partition in self._member.owned

    def _progress(self) -> object:
        consumer = self._reference()
        return None if consumer is None else consumer._progress

    # --- subscription ------------------------------------------------------------------------------------------------

    def subscribe(self, topics: Iterable[str]) -> None:
        """Be a member that wants these topics."""
        if self._member is None:
            reference = weakref.WeakMethod(self._progress)
            self._member = Membership(
                self._broker, self.settings, tuple(topics), lambda: (reference() or (lambda: None))()
            )
            self._detach()
            self._watch(self._member)
        else:
            self._member.subscribe(topics)

    def subscribe_again(self, topics: tuple[str, ...]) -> None:
        """The catalog changed: topics came or went, or have more partitions."""
        if self._member is not None:
            self._member.follow(topics)

    def _watch(self, member: Membership) -> None:
        self._consumer._take_part(self._broker._groups.slots, 2 * member.slot + EPOCH, member.epoch)

    def attach(self, readers: Mapping[TopicPartition, PartitionReader]) -> None:
        """Read partitions assigned by hand: from the committed offsets, and commit while nobody owns them. As long as
        this consumer and its process live, the group's offsets do not expire."""
        store = self._broker._groups
        process = self._broker._keeper.token()
        attachment = self._attachment or uuid.uuid4().hex
        with store.change() as connection:
            group_id = store.group_id(self.settings.group, self._broker.clock.time_ms())
            store.set_reads_committed(group_id, self.settings.committed_only)
            connection.execute("INSERT OR REPLACE INTO attached VALUES (?, ?, ?)", (attachment, group_id, process))
            for place, reader in readers.items():
                reader.cell = store.cell(group_id, *place)
                reader.claim = store.commits.claim_of(reader.cell)
                if (offset := store.commits.offset(reader.cell)) >= 0:
                    self._consumer._move(reader, offset)

        self._attachment = attachment
        self._broker._keeper.watch(attachment, self._reference)

    def _detach(self) -> None:
        if self._attachment is not None:
            self._broker._keeper.forget(self._attachment)
            self._attachment = None

    # --- rebalance ---------------------------------------------------------------------------------------------------

    def rebalance(self) -> None:
        """Do what the group asks of this member now."""
        member = self._member
        if member is None or self._rebalancing:
            return
        self._rebalancing = True
        self.untouched = False
        try:
            change = member.look()
            if change is None:
                lost = list(member.owned)
                member.rejoin()
                self._drop(lost, self._listeners.on_lost)
                change = member.look()
            if change is not None and change.lost:
                member.forget(change.lost)
                self._drop(change.lost, self._listeners.on_lost)
            if change is not None and change.revoked:
                self._revoke(member, change.revoked)
            self._claim(member)
            self._watch(member)
        finally:
            self._rebalancing = False

    def _drop(self, partitions: list[TopicPartition], listener: Listener | None) -> None:
        self._consumer._stop_reading(partitions)
        if partitions and listener is not None:
            self._consumer._call_back(listener, partitions)

    def _revoke(self, member: Membership, partitions: list[TopicPartition]) -> None:
        if self._listeners.on_revoked is not None:
            self._consumer._call_back(self._listeners.on_revoked, partitions)
        if self.auto_commit:
            self._consumer._commit_positions()
        self._consumer._stop_reading(partitions)
        member.give_up(partitions)

    def _claim(self, member: Membership) -> None:
        claims = member.claim_targets()
        for claim in claims:
            self._consumer._start_at(claim.partition, claim.committed)
            reader = self._consumer._by_partition[claim.partition]
            reader.cell, reader.claim = claim.cell, claim.claim
        if claims and self._listeners.on_assigned is not None:
            self._consumer._call_back(self._listeners.on_assigned, [claim.partition for claim in claims])

    # --- commits -----------------------------------------------------------------------------------------------------

    def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit these offsets; what is not this member's raises `FencedError` after the rest was committed."""
        refused = []
        store = self._broker._groups
        for place, given in offsets.items():
            reader = self._consumer._by_partition.get(place)
            if reader is None or reader.cell < 0 or not store.commits.commit(reader.cell, reader.claim, given.offset):
                refused.append(place)
            elif given.metadata:
                with store.change() as connection:
                    connection.execute(
                        "UPDATE partitions SET metadata = ?, metadata_offset = ? WHERE cell = ?",
                        (given.metadata, given.offset, reader.cell),
                    )
        if self._broker.fsync == "always":
            store.sync()
        if self._counters is not None:
            self._counters.add(COMMITS, 1)
            self._counters.add(REFUSED, len(refused))
        if refused:
            names = ", ".join(map(str, refused))
            raise FencedError(f"{names}: not owned by this member of group {self.settings.group!r} (any more)")

    def committed(self, partition: TopicPartition) -> OffsetAndMetadata | None:
        """Committed offset of any partition of the group."""
        return committed_offset(self._broker, self.settings.group, partition)

    def offsets_for_transaction(self, readers: list[PartitionReader]) -> list[tuple[int, int, int]]:
        """(cell, claim, position) of each; auto-commit ends, for it would commit what a transaction may abort."""
        self.auto_commit = False
        self._consumer._commit_to(self._broker._groups.commits, False, self._counters)
        return [(reader.cell, reader.claim, reader.position) for reader in readers if reader.position >= 0]

    # --- leaving -----------------------------------------------------------------------------------------------------

    def leave(self, commit: bool) -> None:
        """Stop being a member; `commit`: what was delivered counts as dealt with."""
        member, self._member = self._member, None
        self._consumer._take_part(None, 0, 0)
        if commit:
            self._consumer._commit_positions()
        self._detach()
        if member is None:
            return
        try:
            if member.owned and self._listeners.on_revoked is not None:
                self._consumer._call_back(self._listeners.on_revoked, list(member.owned))
            member.leave()
        except PenstockError:
            self._member = member  # closing again tries again
            raise

    def abandon(self) -> None:
        """Stop being a member without a word; the keeper sees to it when it can."""
        if self._member is not None:
            self._broker._keeper.drop(self._member)
        self._member, self._attachment = None, None

    def after_fork(self) -> None:
        """In a forked child: become a member of its own; what the parent has stays the parent's."""
        if self._attachment is not None:
            self._attachment = None
            self.attach(self._consumer._by_partition)
        if self._member is not None:
            self._consumer._stop_reading(list(self._member.owned))
            self._member.rejoin()
            self._watch(self._member)
