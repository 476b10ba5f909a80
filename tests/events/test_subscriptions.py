"""Following a store: no gap, no repetition, whoever appends and whoever dies."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from children import Child

import penstock
from penstock import events


class Counted(events.Event, type="test.Counted"):
    number: int


class Marked(events.Event, type="test.Marked"):
    number: int


@pytest.fixture
def store(tmp_path: Path) -> Iterator[events.EventStore]:
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        yield events.EventStore(broker, "shop")


def numbers(found: Any) -> list[int]:
    return [event.event.number for event in found]


def test_what_is_stored_then_what_comes(store: events.EventStore) -> None:
    store.append("a-1", [Counted(0), Counted(1)])
    following = store.subscribe(timeout=0)
    assert numbers(following) == [0, 1]
    assert numbers(following) == []
    store.append("b-1", Counted(2))
    assert numbers(following) == [2]
    assert following.position == 3
    assert numbers(store.subscribe(after=1, timeout=0)) == [1, 2]
    assert numbers(store.subscribe(after=store.position, timeout=0)) == []
    assert numbers(store.subscribe(after=99, timeout=0)) == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"types": Counted}, [0, 2, 4]),
        ({"types": ["test.Marked", Counted]}, [0, 1, 2, 3, 4]),
        ({"types": "test.Marked"}, [1, 3]),
        ({"category": "a"}, [0, 1, 4]),
        ({"category": "a", "types": Counted}, [0, 4]),
        ({"stream": "b-1"}, [2, 3]),
        ({"stream": "b-1", "types": [Marked]}, [3]),
        ({"tags": ["even"]}, [0, 2, 4]),
        ({"tags": ["even"], "category": "b"}, [2]),
        ({"stream": "none"}, []),
    ],
)
def test_filters(store: events.EventStore, wanted: dict[str, Any], expected: list[int]) -> None:
    live, late = store.subscribe(timeout=0, **wanted), store.subscribe(timeout=0, **wanted)
    seen = []
    for number, stream in enumerate(["a-1", "a-2", "b-1", "b-1", "a-1"]):
        event = Marked(number) if number % 2 else Counted(number)
        store.append(stream, event, tags=[] if number % 2 else ["even"])
        seen += numbers(live)
    assert seen == numbers(late) == expected
    assert late.position == live.position == 5, "nothing wanted is before this position"
    assert numbers(store.subscribe(after=3, timeout=0, **wanted)) == [number for number in expected if number >= 3]


def test_what_streams_do_not_show_is_not_given(store: events.EventStore) -> None:
    store.append("a-1", [Counted(0), Counted(1)])
    store.truncate("a-1", 1)
    following = store.subscribe(stream="a-1", timeout=0)
    assert numbers(following) == [1]
    store.append("a-1", Counted(2))
    assert numbers(following) == [2]


@pytest.mark.parametrize(
    "wanted",
    [
        {"after": -1},
        {"after": "0"},
        {"timeout": -1},
        {"timeout": "1"},
        {"category": ""},
        {"stream": 5},
        {"category": "a", "stream": "b"},
        {"types": [5]},
        {"tags": "even"},
    ],
)
def test_bad_arguments(store: events.EventStore, wanted: dict[str, Any]) -> None:
    with pytest.raises(penstock.PenstockError) as caught:
        store.subscribe(**wanted)
    assert isinstance(caught.value, (ValueError, TypeError))


def test_batches(store: events.EventStore) -> None:
    store.append("a-1", [Counted(number) for number in range(5)])
    following = store.subscribe()
    assert numbers(following.receive(3)) == [0, 1, 2]
    assert numbers(following.receive(3)) == [3, 4]
    assert following.receive(3) == []
    with pytest.raises(penstock.InvalidArgumentError):
        following.receive(0)


def test_who_waits_is_woken(store: events.EventStore) -> None:
    found: list[int] = []

    def follow() -> None:
        found.extend(event.event.number for event in following)  # type: ignore[attr-defined]

    with store.subscribe() as following:
        thread = threading.Thread(target=follow)
        thread.start()
        for number in range(20):
            store.append("a-1", Counted(number))
            while len(found) <= number:
                store.wait(0, 0.001)
        following.close()
        thread.join(30)
    assert found == list(range(20)) and not thread.is_alive()
    assert following.closed and numbers(following) == []


@pytest.mark.parametrize("who", ["store", "broker"])
def test_closing_the_store_ends_it(store: events.EventStore, who: str) -> None:
    store.append("a-1", [Counted(0), Counted(1)])
    following = store.subscribe()
    begun = threading.Event()
    found = []

    def follow() -> None:
        for event in following:
            found.append(event.position)
            begun.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert begun.wait(30)
    getattr(store, who, store).close()
    thread.join(30)
    assert not thread.is_alive() and found[0] == 1


def test_async(store: events.EventStore) -> None:
    async def follow() -> list[int]:
        found = []
        async with store.subscribe(timeout=30) as following:
            async for event in following:
                found.append(event.event.number)  # type: ignore[attr-defined]
                if len(found) == 6:
                    break
        return found

    async def append() -> None:
        for number in range(2, 6):
            await asyncio.sleep(0)
            store.append("a-1", Counted(number))

    async def both() -> list[int]:
        task = asyncio.create_task(follow())
        await append()
        return await task

    store.append("a-1", [Counted(0), Counted(1)])
    assert asyncio.run(both()) == list(range(6))

    async def nothing() -> list[int]:
        return [event.position async for event in store.subscribe(after=6, timeout=0.01)]

    assert asyncio.run(nothing()) == []


def test_a_closed_one_ends_for_tasks_too(store: events.EventStore) -> None:
    async def follow() -> int:
        following = store.subscribe()
        asyncio.get_running_loop().call_later(0.01, following.close)
        return len([event async for event in following])

    assert asyncio.run(follow()) == 0


APPENDER = """
import sys, penstock
from penstock import events
class Counted(events.Event, type="test.Counted"):
    number: int
with penstock.open(sys.argv[1], fsync="never") as broker:
    store = events.EventStore(broker, "shop")
    stream, count, batch = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    number = 0
    while number < count:
        store.append(stream, [Counted(number + i) for i in range(batch)])
        number += batch
"""


def appender(store: events.EventStore, stream: str, count: int, batch: int) -> Child:
    return Child(APPENDER, store.broker.path, stream, count, batch)


def check_followed(store: events.EventStore, processes: int, count: int, kill: bool) -> None:
    """Followers, live and filtered, see what reading all in the end gives: nothing twice, nothing missing."""
    chance = random.Random(processes)
    wanted: list[dict[str, Any]] = [{}, {"types": Counted}, {"category": "s"}, {"stream": "s-1"}]
    seen: list[list[tuple[int, int]]] = [[] for _ in wanted]
    done = threading.Event()

    def follow(which: int) -> None:
        with store.subscribe(**wanted[which], timeout=0.05) as following:
            while True:
                last = done.is_set()
                seen[which] += [(event.position, event.version) for event in following]
                if last:
                    return

    threads = [threading.Thread(target=follow, args=(which,)) for which in range(len(wanted))]
    for thread in threads:
        thread.start()
    children = [appender(store, f"s-{number}", count, 1 + 6 * (number % 2)) for number in range(processes)]
    if kill:
        while store.position < count // 2:
            store.wait(store.position, 1)
        for child in chance.sample(children, processes // 2):
            child.send_signal(signal.SIGKILL)
    codes = [child.wait(110) for child in children]
    done.set()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert all(code in ((0, -signal.SIGKILL) if kill else (0,)) for code in codes)
    everything = list(store.read_all())
    for found, one in zip(seen, wanted, strict=True):
        stream = one.get("stream")
        assert found == [(e.position, e.version) for e in everything if stream is None or e.stream == stream]
    for number in range(processes):
        versions = [event.version for event in store.read(f"s-{number}")]
        assert versions == list(range(len(versions)))


def test_no_gap_and_no_repetition_while_others_append_and_die(store: events.EventStore) -> None:
    check_followed(store, 3, 140, kill=True)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, True])
def test_no_gap_and_no_repetition_at_length(store: events.EventStore, kill: bool) -> None:
    check_followed(store, 8, 21_000, kill)


def test_a_forked_child_follows_on_its_own(store: events.EventStore) -> None:
    store.append("a-1", [Counted(0), Counted(1)])
    following = store.subscribe(timeout=0)
    assert next(following).position == 1
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writes, repr(numbers(following)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writes)
    assert os.read(reads, 100) == b"[1]"
    os.close(reads)
    assert numbers(following) == [1]
