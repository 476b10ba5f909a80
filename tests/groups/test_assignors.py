"""Assignors are pure functions: what holds for every input is checked for many."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import InvalidConfigError, Subscriptions, TopicPartition
from penstock.streams.assignors import ASSIGNORS, Assignment, checked_assignment, find_assignor

TOPICS = ("a", "b", "c")
ALL = sorted(set(ASSIGNORS))


@st.composite
def groups(draw: st.DrawFn, alike: bool = False) -> Subscriptions:
    names = draw(st.lists(st.sampled_from("klmnopqrst"), min_size=1, max_size=8, unique=True))
    partitions = {topic: draw(st.integers(1, 12)) for topic in TOPICS}
    some = st.lists(st.sampled_from(TOPICS), min_size=1, max_size=3, unique=True).map(tuple)
    members = {name: TOPICS if alike else draw(some) for name in names}
    places = [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
    current = {place: draw(st.sampled_from([*names, "gone"])) for place in places if draw(st.booleans())}
    return Subscriptions(members, partitions, {place: who for place, who in current.items() if who in members})


def loads(assignment: Assignment, subscriptions: Subscriptions) -> list[int]:
    counted = Counter(assignment.values())
    return sorted(counted.get(member, 0) for member in subscriptions.members)


@pytest.mark.parametrize("name", ALL)
@given(subscriptions=groups())
def test_every_partition_somebody_wants_goes_to_one_who_wants_it(name: str, subscriptions: Subscriptions) -> None:
    assignment = ASSIGNORS[name](subscriptions)
    wanted = {topic for topics in subscriptions.members.values() for topic in topics}
    expected = {TopicPartition(t, n) for t in wanted for n in range(subscriptions.partitions[t])}
    assert set(assignment) == expected
    assert all(place.topic in subscriptions.members[member] for place, member in assignment.items())
    assert assignment == ASSIGNORS[name](subscriptions)


@pytest.mark.parametrize("name", ["roundrobin", "sticky"])
@given(subscriptions=groups(alike=True))
def test_members_that_want_the_same_get_as_many(name: str, subscriptions: Subscriptions) -> None:
    found = loads(ASSIGNORS[name](subscriptions), subscriptions)
    assert found[-1] - found[0] <= 1


@given(subscriptions=groups(alike=True))
def test_sticky_moves_no_more_than_evenness_asks(subscriptions: Subscriptions) -> None:
    assignment = ASSIGNORS["sticky"](subscriptions)
    kept = sum(assignment[place] == member for place, member in subscriptions.current.items())
    each, more = divmod(len(assignment), len(subscriptions.members))
    held = sorted((Counter(subscriptions.current.values())[m] for m in subscriptions.members), reverse=True)
    most = sum(min(count, each + (place < more)) for place, count in enumerate(held))
    assert kept == most


@given(subscriptions=groups())
def test_sticky_leaves_no_move_that_would_help(subscriptions: Subscriptions) -> None:
    assignment = ASSIGNORS["sticky"](subscriptions)
    load = Counter(assignment.values())
    for place, member in assignment.items():
        for other in subscriptions.subscribers(place.topic):
            assert load[member] <= load[other] + 1


@given(subscriptions=groups())
def test_sticky_is_settled_by_its_own_result(subscriptions: Subscriptions) -> None:
    first = ASSIGNORS["sticky"](subscriptions)
    again = Subscriptions(subscriptions.members, subscriptions.partitions, first)
    assert ASSIGNORS["sticky"](again) == first


def test_range_is_kafkas() -> None:
    result = ASSIGNORS["range"](Subscriptions({"y": ("t",), "x": ("t",)}, {"t": 5}))
    assert [result[TopicPartition("t", n)] for n in range(5)] == ["x", "x", "x", "y", "y"]


def test_round_robin_is_kafkas() -> None:
    members = {"c0": ("t0",), "c1": ("t0", "t1"), "c2": ("t0", "t1", "t2")}
    result = ASSIGNORS["roundrobin"](Subscriptions(members, {"t0": 1, "t1": 2, "t2": 3}))
    assert [result[TopicPartition(*place)] for place in [("t0", 0), ("t1", 0), ("t1", 1)]] == ["c0", "c1", "c2"]
    assert {result[TopicPartition("t2", n)] for n in range(3)} == {"c2"}


def test_single_active_stays_with_who_has_it() -> None:
    members = {"old": ("t",), "new": ("t",)}
    held = {TopicPartition("t", 0): "new", TopicPartition("t", 1): "new"}
    assert set(ASSIGNORS["single-active"](Subscriptions(members, {"t": 2}, held)).values()) == {"new"}
    assert set(ASSIGNORS["single-active"](Subscriptions(members, {"t": 2})).values()) == {"old"}


def test_unknown_strategy_names_what_is_allowed() -> None:
    with pytest.raises(InvalidConfigError, match=r"'eager'.*'range'"):
        find_assignor("eager")


@pytest.mark.parametrize("assignment", [{("t", 9): "m"}, {("t", -1): "m"}, {("t", 0): "stranger"}, {("u", 0): "m"}])
def test_nonsense_of_ones_own_assignor_is_refused(assignment: Assignment) -> None:
    with pytest.raises(InvalidConfigError):
        checked_assignment(assignment, Subscriptions({"m": ("t",)}, {"t": 2}))
