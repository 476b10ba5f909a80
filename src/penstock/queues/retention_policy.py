"""NATS's retention: what a topic with share groups keeps once messages are settled.

`limits` (default): until age or size say otherwise. `work-queue`: until the topic's one share group has settled them.
`interest`: until every share group has settled them and every consumer group has committed past them; with neither,
nobody is interested, and nothing is kept. In each case the limits hold too. Deleted is what lies below the first record
that somebody still needs, by maintenance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import InvalidConfigError
from penstock.queues.delivery_store import PREFIX, groups_of, open_delivery
from penstock.storage.topic_config import RETENTION_POLICIES

if TYPE_CHECKING:
    from penstock.queues.broker import Broker
    from penstock.storage.partition_log import PartitionLog

LIMITS, WORK_QUEUE, INTEREST = RETENTION_POLICIES


def trim(broker: Broker, topic: str, policy: str) -> None:
    """Delete what a topic need not keep any more."""
    if policy == LIMITS:
        return
    committed = _committed(broker, topic) if policy == INTEREST else []
    for number in range(broker._topic_config(topic).partitions):
        _trim_partition(broker, broker._log(topic, number), policy, committed)


def trim_partition(broker: Broker, log: PartitionLog) -> None:
    """The same in one partition."""
    policy = log.config.retention_policy
    if policy != LIMITS:
        _trim_partition(broker, log, policy, _committed(broker, log.topic) if policy == INTEREST else [])


def _trim_partition(broker: Broker, log: PartitionLog, policy: str, committed: list[dict[int, int]]) -> None:
    needed = [offsets[log.number] for offsets in committed if log.number in offsets]
    needed += [_first_unsettled(broker, log, group) for group in groups_of(log)]
    end = int(log.log_end_offset)
    if policy == WORK_QUEUE and not needed:
        return  # nobody has begun to work on it
    start = min([*needed, end])
    if start == end > log.log_start_offset:
        log.roll_active()  # so that its file can go
    log.delete_before(start)


def check_group(broker: Broker, topic: str, group: str) -> None:
    """A topic of work has one share group. Raises `InvalidConfigError`."""
    if broker._topic_config(topic).retention_policy != WORK_QUEUE:
        return
    others = [name for name in groups_of(broker._log(topic, 0)) if name != group]
    if others:
        raise InvalidConfigError(
            f"group is {group!r}; topic {topic!r} has retention_policy {WORK_QUEUE!r}, and {others[0]!r} as its group"
        )


def _first_unsettled(broker: Broker, log: PartitionLog, group: str) -> int:
    directory = log.directory / f"{PREFIX}{group}"
    delivery = open_delivery(broker, log, group, ordered=(directory / "slots").exists())
    start = -1
    while start < delivery.start:  # a look passes over a part of what is settled
        start = delivery.start
        delivery.take_in()
    return start


def _committed(broker: Broker, topic: str) -> list[dict[int, int]]:
    """For each consumer group that reads the topic: its committed offsets by partition (0 where it has none)."""
    found = []
    for name in broker.groups():
        offsets = {
            one.partition: one.committed or 0 for one in broker.describe_group(name).partitions if one.topic == topic
        }
        if offsets:
            found.append(offsets)
    return found
