"""What any process does for a group under the store's lock: members come and go, partitions are assigned.

There is no server: a member that finds its group stale computes the assignment for all. A member is told by its slot's
epoch. Every function here runs inside `GroupStore.change`.
"""

from __future__ import annotations

import json
import logging
from sqlite3 import Connection

from penstock.storage.group_store import GroupStore
from penstock.streams.assignors import Assignor, Subscriptions, checked_assignment
from penstock.streams.topic_partition import TopicPartition

_log = logging.getLogger("penstock.groups")


def rebalance(
    store: GroupStore, connection: Connection, group_id: int, partitions: dict[str, int], assignor: Assignor
) -> None:
    """Give every partition a target, and tell the members for which something changed."""
    members = connection.execute(
        "SELECT id, topics FROM members WHERE group_id = ? ORDER BY number", (group_id,)
    ).fetchall()
    known = connection.execute(
        "SELECT topic, number, cell, target, owner FROM partitions WHERE group_id = ?", (group_id,)
    ).fetchall()
    topics = {member: tuple(json.loads(raw)) for member, raw in members}
    targets = {TopicPartition(topic, number): target for topic, number, _, target, _ in known}
    owners = {TopicPartition(topic, number): owner for topic, number, _, _, owner in known}
    current = {place: member for place, member in {**owners, **targets}.items() if member in topics}
    subscriptions = Subscriptions(topics, partitions, current)
    wanted = checked_assignment(assignor(subscriptions), subscriptions) if topics else {}
    missing = [place for place in wanted if place not in targets]
    if missing:
        store.add_cells(group_id, [(place.topic, place.partition) for place in missing])
    changed = [(wanted.get(place), place) for place in {**targets, **wanted} if targets.get(place) != wanted.get(place)]
    connection.executemany(
        "UPDATE partitions SET target = ? WHERE group_id = ? AND topic = ? AND number = ?",
        [(member, group_id, place.topic, place.partition) for member, place in changed],
    )
    connection.execute("UPDATE groups SET stale = 0, generation = generation + 1 WHERE id = ?", (group_id,))
    store.set_counts(group_id, {topic: partitions[topic] for topic in subscriptions.topics()})
    told: set[str | None] = set()
    for member, place in changed:
        owner = owners.get(place)
        told |= {owner} if owner is not None and owner in topics else {member}
    told |= {wanted.get(place) for place, owner in owners.items() if owner is None}
    tell(store, connection, group_id, told)
    _log.debug("group %d: %d partitions for %d members, %d moved", group_id, len(wanted), len(topics), len(changed))


def tell(store: GroupStore, connection: Connection, group_id: int, members: set[str | None]) -> None:
    """Make these members look."""
    if not members - {None}:
        return
    for member, slot in connection.execute("SELECT id, slot FROM members WHERE group_id = ?", (group_id,)):
        if member in members:
            store.bump(slot)


def make_stale(store: GroupStore, connection: Connection, group_id: int) -> None:
    """The next member that looks computes the assignment anew; all are made to look."""
    connection.execute("UPDATE groups SET stale = 1 WHERE id = ?", (group_id,))
    for (slot,) in connection.execute("SELECT slot FROM members WHERE group_id = ?", (group_id,)):
        store.bump(slot)


def release_partitions(store: GroupStore, connection: Connection, member_id: str) -> None:
    """Nobody has the member's partitions any more, and it cannot commit to them."""
    for (cell,) in connection.execute("SELECT cell FROM partitions WHERE owner = ?", (member_id,)).fetchall():
        store.commits.fence(cell)
    connection.execute("UPDATE partitions SET owner = NULL WHERE owner = ?", (member_id,))


def remove_member(store: GroupStore, connection: Connection, member_id: str, now_ms: int) -> None:
    """The member is gone, whether it left or was found dead; its partitions go to others."""
    row = connection.execute("SELECT group_id, slot FROM members WHERE id = ?", (member_id,)).fetchone()
    if row is None:
        return
    group_id, slot = row
    release_partitions(store, connection, member_id)
    connection.execute("UPDATE partitions SET target = NULL WHERE target = ?", (member_id,))
    connection.execute("DELETE FROM members WHERE id = ?", (member_id,))
    store.give_slot(slot)
    left = connection.execute("SELECT count(*) FROM members WHERE group_id = ?", (group_id,)).fetchone()[0]
    if left == 0:
        connection.execute(
            "UPDATE groups SET emptied_ms = ?, strategy = '', stale = 0 WHERE id = ?", (now_ms, group_id)
        )
    else:
        make_stale(store, connection, group_id)


def park_member(connection: Connection, member_id: str, now_ms: int) -> None:
    """A static member went away: its partitions wait for it until its session times out."""
    connection.execute("UPDATE members SET process = NULL, left_ms = ? WHERE id = ?", (now_ms, member_id))


def detach(connection: Connection, column: str, value: str, now_ms: int) -> None:
    """Consumers that used a group's offsets without being members are gone: from now on the offsets may expire."""
    connection.execute(
        f"UPDATE groups SET emptied_ms = ? WHERE id IN (SELECT group_id FROM attached WHERE {column} = ?)",
        (now_ms, value),
    )
    connection.execute(f"DELETE FROM attached WHERE {column} = ?", (value,))


def remove_process(store: GroupStore, connection: Connection, token: str, now_ms: int) -> None:
    """A process is gone, and with it its members (static ones are parked)."""
    members = connection.execute("SELECT id, instance_id FROM members WHERE process = ?", (token,)).fetchall()
    for member, instance in members:
        if instance is None:
            remove_member(store, connection, member, now_ms)
        else:
            release_partitions(store, connection, member)
            park_member(connection, member, now_ms)
    detach(connection, "process", token, now_ms)
    for (slot,) in connection.execute("SELECT slot FROM processes WHERE token = ?", (token,)).fetchall():
        store.give_slot(slot)
    connection.execute("DELETE FROM processes WHERE token = ?", (token,))
