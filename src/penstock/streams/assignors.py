"""Which member of a group reads which partition: Kafka's assignors, as pure functions.

Each takes `Subscriptions` and returns the owner of every partition that anybody subscribes to. The result depends on
the input alone, so it does not matter which process computes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.errors import InvalidConfigError
from penstock.streams.topic_partition import TopicPartition

Assignment = dict[TopicPartition, str]


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """What an assignor sees. `members`: topics of each member, in the order in which they joined."""

    members: dict[str, tuple[str, ...]]
    partitions: dict[str, int]
    """Number of partitions of each topic."""
    current: Assignment = field(default_factory=dict)
    """Who has what now; members that are gone do not appear."""

    def subscribers(self, topic: str) -> list[str]:
        """Members that subscribe to a topic, sorted."""
        return sorted(member for member, topics in self.members.items() if topic in topics)

    def topics(self) -> list[str]:
        """Topics that exist and that somebody subscribes to, sorted."""
        wanted = {topic for topics in self.members.values() for topic in topics}
        return sorted(wanted & self.partitions.keys())


Assignor = Callable[[Subscriptions], Assignment]


def range_assignor(subscriptions: Subscriptions) -> Assignment:
    """Per topic, consecutive partitions to each member; the first members get one more (Kafka's RangeAssignor)."""
    result: Assignment = {}
    for topic in subscriptions.topics():
        members = subscriptions.subscribers(topic)
        each, more = divmod(subscriptions.partitions[topic], len(members))
        number = 0
        for place, member in enumerate(members):
            for _ in range(each + (place < more)):
                result[TopicPartition(topic, number)] = member
                number += 1
    return result


def round_robin_assignor(subscriptions: Subscriptions) -> Assignment:
    """All partitions in order, dealt to the members in turn (Kafka's RoundRobinAssignor)."""
    result: Assignment = {}
    members = sorted(subscriptions.members)
    turn = 0
    for topic in subscriptions.topics():
        for number in range(subscriptions.partitions[topic]):
            while topic not in subscriptions.members[members[turn % len(members)]]:
                turn += 1
            result[TopicPartition(topic, number)] = members[turn % len(members)]
            turn += 1
    return result


def sticky_assignor(subscriptions: Subscriptions) -> Assignment:
    """As even as can be, and of all even assignments one that moves least (Kafka's StickyAssignor)."""
    load: dict[str, list[TopicPartition]] = {member: [] for member in sorted(subscriptions.members)}
    able = {topic: subscriptions.subscribers(topic) for topic in subscriptions.topics()}
    homeless = []
    for topic, members in able.items():
        allowed = set(members)
        for number in range(subscriptions.partitions[topic]):
            partition = TopicPartition(topic, number)
            owner = subscriptions.current.get(partition)
            if owner in allowed:
                load[owner].append(partition)
            else:
                homeless.append(partition)
    for partition in homeless:
        load[min(able[partition.topic], key=lambda member: len(load[member]))].append(partition)
    if len({tuple(members) for members in able.values()}) <= 1:
        _even_out_alike(load, next(iter(able.values()), []))
    else:
        _even_out(load, able)
    return {partition: member for member, partitions in load.items() for partition in partitions}


def _even_out_alike(load: dict[str, list[TopicPartition]], members: list[str]) -> None:
    """Each of `members` may have any partition: those above the quota give to those below."""
    if not members:
        return
    each, more = divmod(sum(map(len, load.values())), len(members))
    ranked = sorted(members, key=lambda member: -len(load[member]))
    quota = {member: each + (place < more) for place, member in enumerate(ranked)}
    spare = [load[member].pop() for member in ranked for _ in range(len(load[member]) - quota[member])]
    for member in reversed(ranked):
        while len(load[member]) < quota[member]:
            load[member].append(spare.pop())


def _even_out(load: dict[str, list[TopicPartition]], able: dict[str, list[str]]) -> None:
    """Members with different subscriptions: move one partition at a time from fuller to emptier, until none helps."""
    moved = True
    while moved:
        moved = False
        for member in sorted(load, key=lambda name: -len(load[name])):
            for partition in list(load[member]):
                emptiest = min(able[partition.topic], key=lambda name: len(load[name]))
                if len(load[member]) > len(load[emptiest]) + 1:
                    load[member].remove(partition)
                    load[emptiest].append(partition)
                    moved = True


def single_active_assignor(subscriptions: Subscriptions) -> Assignment:
    """Everything to one member: the one that has it, else the first that joined (RabbitMQ's single active consumer)."""
    result: Assignment = {}
    for topic in subscriptions.topics():
        able = [member for member, topics in subscriptions.members.items() if topic in topics]
        holders = {subscriptions.current.get(TopicPartition(topic, n)) for n in range(subscriptions.partitions[topic])}
        active = next((member for member in able if member in holders), able[0])
        result.update({TopicPartition(topic, n): active for n in range(subscriptions.partitions[topic])})
    return result


ASSIGNORS: dict[str, Assignor] = {
    "range": range_assignor,
    "roundrobin": round_robin_assignor,
    "sticky": sticky_assignor,
    "cooperative-sticky": sticky_assignor,
    "single-active": single_active_assignor,
}


def find_assignor(strategy: str | Assignor) -> tuple[str, Assignor]:
    """(name, function) of a built-in assignor or of one's own."""
    if callable(strategy):
        return f"custom:{getattr(strategy, '__qualname__', type(strategy).__qualname__)}", strategy
    if not isinstance(strategy, str) or strategy not in ASSIGNORS:
        allowed = ", ".join(map(repr, ASSIGNORS))
        raise InvalidConfigError(f"partition_assignment_strategy is {strategy!r}; give {allowed} or a function")
    return strategy, ASSIGNORS[strategy]


def checked_assignment(assignment: Assignment, subscriptions: Subscriptions) -> Assignment:
    """What an assignor of somebody's own returned, if it makes sense; `InvalidConfigError` otherwise."""
    counts: dict[str, int] = defaultdict(int, subscriptions.partitions)
    for partition, member in assignment.items():
        topic, number = partition
        if member not in subscriptions.members or topic not in subscriptions.members[member]:
            raise InvalidConfigError(f"the assignor gave {partition} to {member!r}, who does not subscribe to it")
        if not 0 <= number < counts[topic]:
            raise InvalidConfigError(f"the assignor gave {partition}; topic {topic!r} has {counts[topic]} partitions")
    return {TopicPartition(*partition): member for partition, member in assignment.items()}
