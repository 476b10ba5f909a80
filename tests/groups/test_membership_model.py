"""A group against a plain model (hypothesis): members of several brokers come, go, hang, die, read and commit.

The model knows of every partition who owns it and what is committed, from the callbacks and from what was done; after
each step the directory has to say the same. Time stands still unless a step moves it, and the keepers look when told.
"""

from __future__ import annotations

import gc
import math
import tempfile
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import penstock
from penstock import FencedError, Subscriptions, TopicPartition
from penstock.streams import keeper as keeper_module

SESSION_S = 45
TOPICS = {"a": 4, "b": 3}
STICKY = ("sticky", "cooperative-sticky")
some = st.integers(0, 1000)  # taken modulo of whatever there is


def backwards(subscriptions: Subscriptions) -> dict[TopicPartition, str]:
    """Somebody's own assignor: the last member first."""
    return {
        TopicPartition(topic, number): sorted(subscriptions.subscribers(topic), reverse=True)[
            number % len(subscriptions.subscribers(topic))
        ]
        for topic in subscriptions.topics()
        for number in range(subscriptions.partitions[topic])
    }


STRATEGIES = ["range", "roundrobin", "sticky", "cooperative-sticky", "single-active", backwards]


def expected_range(members: dict[str, tuple[str, ...]], counts: dict[str, int]) -> dict[TopicPartition, str]:
    """Kafka's RangeAssignor, as its documentation says."""
    result = {}
    for topic, count in counts.items():
        names = sorted(name for name, topics in members.items() if topic in topics)
        for place, name in enumerate(names):
            begin = count // len(names) * place + min(place, count % len(names))
            size = count // len(names) + (place < count % len(names))
            result.update({TopicPartition(topic, n): name for n in range(begin, begin + size)})
    return result


def expected_round_robin(members: dict[str, tuple[str, ...]], counts: dict[str, int]) -> dict[TopicPartition, str]:
    """Kafka's RoundRobinAssignor, as its documentation says."""
    result, queue = {}, sorted(members)
    for topic in sorted(counts):
        for number in range(counts[topic]):
            if not any(topic in topics for topics in members.values()):
                continue
            while topic not in members[queue[0]]:
                queue.append(queue.pop(0))
            result[TopicPartition(topic, number)] = queue[0]
            queue.append(queue.pop(0))
    return result


class Process:
    """A broker as one process would have it: its keeper looks when told, and it can hang and die."""

    def __init__(self, path: Path, clock: penstock.VirtualClock) -> None:
        self.broker = penstock.open(path, clock=clock, fsync="never")
        self.alive, self.hung = True, False
        keeper = self.keeper = self.broker._keeper
        keeper.token()
        keeper._stopped.set()
        assert keeper._thread is not None
        keeper._thread.join()
        self.beat = clock.monotonic()

    @property
    def works(self) -> bool:
        return self.alive and not self.hung

    def resume(self) -> None:
        """It says that it is alive."""
        if self.alive and self.hung:
            self.hung = False
            self.keeper._store.beat(self.keeper._slot, self.keeper._now_ms())
            self.beat = self.keeper._clock.monotonic()

    def crash(self) -> None:
        """What the kernel does when a process dies: its locks are free."""
        self.alive = False
        assert self.keeper._process is not None
        self.keeper._process.release()
        self.keeper._coordinator.release()


class Member:
    """What the model knows of a consumer; called by it. It does not hold the consumer."""

    def __init__(self, group: GroupModel, process: Process, topics: tuple[str, ...], static: str | None) -> None:
        self.group, self.process, self.topics, self.static = weakref.proxy(group), process, topics, static
        self.auto = self.commits_when_revoked = False
        self.max_poll_s = 3600.0
        self.positions: dict[TopicPartition, int] = {}
        self.listed = True  # has a row in the group
        self.leaving = self.dropped = self.fenced = False
        self.fresh, self.looked, self.since, self.watched = True, False, 0.0, True
        self.member_id = ""
        self.revoked: set[TopicPartition] = set()
        self.events = 0
        self.consumer: Callable[[], penstock.Consumer | None] = lambda: None

    def assigned(self, places: list[TopicPartition]) -> None:
        self.events += 1
        for place in places:
            assert self.group.owners.get(place) is None, f"{place} was taken while somebody has it"
            self.group.owners[place] = self
            self.positions[place] = self.group.committed.get(place, 0)

    def given_up(self, places: list[TopicPartition]) -> None:
        self.events += 1
        mine = [place for place in places if self.group.owners.get(place) is self]
        assert self.leaving or len(mine) == len(places)
        if self.commits_when_revoked:
            consumer = self.consumer()
            assert consumer is not None
            consumer.commit({place: self.positions[place] for place in mine})
            self.group.committed.update({place: self.positions[place] for place in mine})
        for place in places:
            del self.positions[place]
        for place in mine:
            self.group.owners[place] = None
            self.revoked.add(place)

    def lost(self, places: list[TopicPartition]) -> None:
        self.events += 1
        for place in places:
            assert self.group.owners.get(place) is not self, f"{place} was lost for no reason"
            del self.positions[place]

    @property
    def acts(self) -> bool:
        return self.process.works and not self.dropped and not self.fenced

    @property
    def ghost(self) -> bool:
        """In the group, and cannot do what the group asks."""
        return self.listed and not self.acts

    def delivered_counts(self) -> None:
        for place, position in self.positions.items():
            if self.group.owners.get(place) is self:
                assert position >= self.group.committed.get(place, 0)
                self.group.committed[place] = position


class GroupModel(RuleBasedStateMachine):
    """See the module."""

    @initialize(strategy=st.sampled_from(STRATEGIES))
    def open(self, strategy: Any) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "data"
        self.clock = penstock.VirtualClock()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(keeper_module, "TICK_S", 3600.0)  # it looks when a step says so
        self.strategy = strategy
        self.members: list[Member] = []
        self.joined = 0
        self.consumers: dict[int, penstock.Consumer] = {}
        self.parked: dict[str, tuple[str, float]] = {}  # static id: member id, since when away
        self.owners: dict[TopicPartition, Member | None] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.counts = dict(TOPICS)
        self.stored: dict[TopicPartition, int] = defaultdict(int)
        self.admin = penstock.open(self.path, clock=self.clock, fsync="never")  # is in no group
        for topic, count in TOPICS.items():
            self.admin.create_topic(topic, partitions=count)
        self.processes = [Process(self.path, self.clock) for _ in range(2)]

    def teardown(self) -> None:
        if not hasattr(self, "processes"):
            return
        for member in self.members:
            member.commits_when_revoked, member.leaving = False, True
        for process in self.processes:
            process.broker.close()
        self.admin.close()
        self.patch.undo()
        self.directory.cleanup()
        self.consumers.clear()

    # --- what the model does by itself ---------------------------------------------------------------------------

    def release(self, member: Member) -> None:
        """Nobody has its partitions."""
        self.owners = {place: None if owner is member else owner for place, owner in self.owners.items()}

    def removed(self, member: Member) -> None:
        """The group threw it out."""
        member.listed = False
        self.release(member)

    def chosen(self, number: int) -> Member | None:
        able = [member for member in self.members if member.acts]
        return able[number % len(able)] if able else None

    def worker(self, number: int) -> Process | None:
        able = [process for process in self.processes if process.works]
        return able[number % len(able)] if able else None

    def holder(self, static: str | None) -> Member | None:
        """The member of that static id whose process lives."""
        for member in self.members:
            if static is not None and member.static == static and member.listed and member.process.alive:
                return member
        return None

    def took_row(self, member: Member) -> None:
        """It is in the group now; one who died with this static id is not any more."""
        if member.static is not None:
            self.parked.pop(member.static, None)
            for other in self.members:
                if other is not member and other.static == member.static and other.listed:
                    self.removed(other)
        member.listed, member.fresh, member.looked, member.watched = True, True, False, True
        member.since = self.clock.monotonic()
        consumer = member.consumer()
        assert consumer is not None and consumer.member_id is not None
        member.member_id = consumer.member_id

    # --- steps -----------------------------------------------------------------------------------------------------

    @rule(topic=st.sampled_from(sorted(TOPICS)), number=some, count=st.integers(1, 6))
    def append(self, topic: str, number: int, count: int) -> None:
        place = TopicPartition(topic, number % self.counts[topic])
        for _ in range(count):
            self.admin.topic(topic).append(b"%d" % self.stored[place], partition=place.partition)
            self.stored[place] += 1

    @rule(
        process=some,
        topics=st.sampled_from([("a",), ("b",), ("a", "b"), ("a", "b")]),
        static=st.sampled_from([None, None, "s1", "s2"]),
        auto=st.booleans(),
        commits=st.booleans(),
        max_poll_s=st.sampled_from([100.0, 3600.0]),
    )
    def join(
        self, process: int, topics: tuple[str, ...], static: str | None, auto: bool, commits: bool, max_poll_s: float
    ) -> None:
        self.add(process, topics, static, auto, commits, max_poll_s)

    def add(
        self, process: int, topics: tuple[str, ...], static: str | None, auto: bool, commits: bool, max_poll_s: float
    ) -> Member | None:
        where = self.worker(process)
        if where is None or sum(member.acts for member in self.members) >= 5:
            return None
        member = Member(self, where, topics, static)
        self.joined += 1
        client_id = f"{self.joined:04}"  # what a member's id begins with: it decides who is first
        options: dict[str, Any] = (
            {"single_active_consumer": True}
            if self.strategy == "single-active"
            else {"partition_assignment_strategy": self.strategy}
        )

        def make() -> penstock.Consumer:
            return where.broker.consumer(
                *topics, group="g", group_instance_id=static, enable_auto_commit=auto,
                session_timeout_ms=SESSION_S * 1000, max_poll_interval_ms=int(max_poll_s * 1000),
                on_assigned=member.assigned, on_revoked=member.given_up, on_lost=member.lost,
                client_id=client_id, **options,
            )  # fmt: skip

        if self.holder(static) is not None:
            with pytest.raises(FencedError, match=static):
                make()
            return None
        consumer = make()
        member.auto, member.commits_when_revoked, member.max_poll_s = auto, commits, max_poll_s
        member.consumer = weakref.ref(consumer)
        self.members.append(member)
        self.consumers[id(member)] = consumer
        self.took_row(member)
        return member

    @rule(number=some)
    def leave(self, number: int) -> None:
        if (member := self.chosen(number)) is not None:
            self.close(member)

    def close(self, member: Member) -> None:
        if member.auto:
            member.delivered_counts()
        member.leaving = True
        self.consumers.pop(id(member)).close()
        self.release(member)
        if member.static is not None and member.listed:
            self.parked[member.static] = member.member_id, self.clock.time_ms()
        self.members.remove(member)

    @rule(number=some)
    def drop(self, number: int) -> None:
        """Without a close; its process notices at its next look."""
        member = self.chosen(number)
        if member is None or member.static is not None:
            return
        member.dropped = True
        del self.consumers[id(member)]
        gc.collect()
        assert member.consumer() is None

    @rule(number=some)
    def hang(self, number: int) -> None:
        process = self.processes[number % len(self.processes)]
        process.hung = True

    @rule(number=some)
    def resume(self, number: int) -> None:
        self.processes[number % len(self.processes)].resume()

    @rule(number=some)
    def crash(self, number: int) -> None:
        """A process dies, another one starts; that it died is noticed at the next look."""
        place = number % len(self.processes)
        if sum(not process.alive for process in self.processes) or len(self.members) > 20:
            return
        self.processes[place].crash()
        self.processes.append(Process(self.path, self.clock))

    def notice_deaths(self) -> None:
        """A process that works looked; the locks of the dead are free."""
        for member in [member for member in self.members if not member.process.alive]:
            if member.listed:
                self.removed(member)
                if member.static is not None:
                    self.parked[member.static] = member.member_id, self.clock.time_ms()

    @rule(seconds=st.sampled_from([2, 30, 46, 120]))
    def pass_time(self, seconds: int) -> None:
        steps = math.ceil(seconds / 40)
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            for process in self.processes:
                if process.works:
                    process.keeper.tick()
                    process.beat = self.clock.monotonic()
                    self.own_members_looked_after(process)
            if any(process.works for process in self.processes):
                self.others_looked_after()

    def own_members_looked_after(self, process: Process) -> None:
        now = self.clock.monotonic()
        for member in [member for member in self.members if member.process is process]:
            if member.dropped:
                self.removed(member)
                self.members.remove(member)
            elif member.fresh or member.looked:
                member.fresh, member.looked, member.since = False, False, now
            elif member.watched and now - member.since > member.max_poll_s:
                member.watched = False
                self.removed(member)

    def others_looked_after(self) -> None:
        self.notice_deaths()
        for member in self.members:
            if member.listed and member.process.hung and self.clock.monotonic() - member.process.beat > SESSION_S:
                self.removed(member)
        now_ms = self.clock.time_ms()
        self.parked = {name: kept for name, kept in self.parked.items() if now_ms - kept[1] <= SESSION_S * 1000}

    @rule(number=some, max_records=st.integers(1, 12))
    def poll(self, number: int, max_records: int) -> None:
        if (member := self.chosen(number)) is not None:
            self.poll_member(member, max_records)

    def poll_member(self, member: Member, max_records: int = 1) -> int:
        consumer = self.consumers[id(member)]
        if member.auto:
            member.delivered_counts()
        if not member.listed and self.holder(member.static) is not None:
            with pytest.raises(FencedError):
                consumer.poll(max_records=max_records, timeout=0)
            member.fenced = True
            return 0
        records = consumer.poll(max_records=max_records, timeout=0)
        if not member.listed:
            self.took_row(member)
        member.looked = True
        for record in records:
            place = TopicPartition(record.topic, record.partition)
            assert self.owners[place] is member, f"{place} is read by one who does not own it"
            assert record.offset == member.positions[place], "read twice, or left out"
            assert record.value == b"%d" % record.offset
            member.positions[place] += 1
        assert consumer.assignment() == set(member.positions)
        return len(records)

    @rule(number=some)
    def commit(self, number: int) -> None:
        if (member := self.chosen(number)) is None:
            return
        consumer = self.consumers[id(member)]
        if all(self.owners.get(place) is member for place in member.positions):
            consumer.commit()
        else:
            with pytest.raises(FencedError):
                consumer.commit()
        member.delivered_counts()

    @rule(number=some, which=some)
    def commit_one(self, number: int, which: int) -> None:
        """By name, whoever owns it."""
        if (member := self.chosen(number)) is None:
            return
        places = sorted(TopicPartition(topic, n) for topic, count in self.counts.items() for n in range(count))
        place = places[which % len(places)]
        offset = member.positions.get(place, 0)
        if self.owners.get(place) is member:
            self.consumers[id(member)].commit({place: offset})
            self.committed[place] = offset
        else:
            with pytest.raises(FencedError):
                self.consumers[id(member)].commit({place: offset})

    @rule(number=some, topics=st.sampled_from([("a",), ("b",), ("a", "b")]))
    def subscribe(self, number: int, topics: tuple[str, ...]) -> None:
        if (member := self.chosen(number)) is not None:
            self.consumers[id(member)].subscribe(*topics)
            member.topics = topics

    @rule(topic=st.sampled_from(sorted(TOPICS)), number=some, offset=st.integers(0, 30))
    def reset(self, topic: str, number: int, offset: int) -> None:
        place = TopicPartition(topic, number % self.counts[topic])
        found = self.admin.reset_offsets("g", topic, offset, partitions=[place.partition])
        self.committed[place] = min(offset, self.stored[place])
        assert found == {place: self.committed[place]}
        self.owners[place] = None

    @rule(topic=st.sampled_from(sorted(TOPICS)))
    def add_partition(self, topic: str) -> None:
        if self.counts[topic] < 6:
            self.counts[topic] += 1
            self.admin.alter_topic(topic, partitions=self.counts[topic])

    # --- settled -----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        quiet = 0
        for _ in range(20):
            before = [member.events for member in self.members]
            for member in [member for member in self.members if member.acts]:
                self.poll_member(member)
            quiet = quiet + 1 if [member.events for member in self.members] == before else 0
            if quiet == 2:  # in the first one somebody may have found that others have to do something
                return
        raise AssertionError("the group does not settle")

    def wanted(self) -> set[TopicPartition]:
        topics = {topic for member in self.members if member.listed for topic in member.topics}
        return {TopicPartition(topic, n) for topic in topics for n in range(self.counts[topic])}

    @property
    def all_act(self) -> bool:
        return not self.parked and not any(member.ghost for member in self.members)

    @rule()
    def settled(self) -> None:
        self.settle()
        listed = [member for member in self.members if member.listed]
        owned = {place: owner for place, owner in self.owners.items() if owner is not None}
        assert all(place.topic in owner.topics for place, owner in owned.items() if owner.acts)
        if not self.all_act or not listed:
            return
        assert set(owned) == self.wanted()
        topics = {member.member_id: member.topics for member in listed}
        counts = {topic: count for topic, count in self.counts.items() if any(topic in t for t in topics.values())}
        names = {place: owner.member_id for place, owner in owned.items()}
        if self.strategy == "range":
            assert names == expected_range(topics, counts)
        elif self.strategy == "roundrobin":
            assert names == expected_round_robin(topics, counts)
        elif self.strategy == "single-active":
            assert all(len({names[TopicPartition(t, n)] for n in range(counts[t])}) == 1 for t in counts)
        elif self.strategy is backwards:
            assert names == backwards(Subscriptions(topics, counts))
        elif len(set(topics.values())) == 1:
            loads = [sum(owner is member for owner in owned.values()) for member in listed]
            assert max(loads) - min(loads) <= 1
        description = self.admin.describe_group("g")
        assert description.state == "stable"
        assert {member.member_id: member.partitions for member in description.members} == {
            member.member_id: sorted(place for place, owner in owned.items() if owner is member) for member in listed
        }

    @rule()
    def everything_is_read(self) -> None:
        """Once nobody hangs: from the committed offset to the end of every partition, nothing left out."""
        for process in self.processes:
            process.resume()
        self.pass_time(2)
        self.pass_time(46)
        self.settle()
        while sum(self.poll_member(member, 50) for member in self.members if member.acts):
            pass
        assert self.all_act
        for place in self.wanted():
            owner = self.owners[place]
            assert owner is not None and owner.positions[place] == self.stored[place]

    @precondition(lambda self: hasattr(self, "strategy") and self.strategy in STICKY)
    @rule(number=some, joins=st.booleans())
    def one_change_moves_the_minimum(self, number: int, joins: bool) -> None:
        self.settle()
        listed = [member for member in self.members if member.listed]
        if not self.all_act or len({member.topics for member in listed}) != 1:
            return
        before = dict(self.owners)
        for member in listed:
            member.revoked.clear()
        if joins and len(listed) < 5:
            self.add(number, listed[0].topics, None, False, False, 3600.0)
        elif len(listed) > 1 and listed[number % len(listed)].static is None:
            self.close(listed[number % len(listed)])
        self.settle()
        listed = [member for member in self.members if member.listed]
        held = sorted((sum(owner is member for owner in before.values()) for member in listed), reverse=True)
        each, more = divmod(len(self.wanted()), len(listed))
        most = sum(min(count, each + (place < more)) for place, count in enumerate(held))
        kept = {place for place, owner in before.items() if owner is not None and self.owners[place] is owner}
        assert len(kept) == most
        assert not any(member.revoked & kept for member in listed), "what did not move was paused"

    # --- always ------------------------------------------------------------------------------------------------------

    @invariant()
    def the_directory_agrees(self) -> None:
        if not hasattr(self, "processes") or "g" not in self.admin.groups():
            return
        description = self.admin.describe_group("g")
        listed = [member.member_id for member in self.members if member.listed]
        assert Counter(member.member_id for member in description.members) == Counter(
            [*listed, *(name for name, _ in self.parked.values())]
        )
        for found in description.partitions:
            place = TopicPartition(found.topic, found.partition)
            owner = self.owners.get(place)
            assert found.member_id == (None if owner is None else owner.member_id), place
            assert (found.committed or 0) == self.committed.get(place, 0), place


GroupModel.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.reuse, Phase.generate],
)
TestGroupModel = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")(GroupModel.TestCase)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_for_long() -> None:
    long = settings(GroupModel.TestCase.settings, max_examples=3000, stateful_step_count=80, phases=list(Phase))
    run_state_machine_as_test(GroupModel, settings=long)
