"""Envelopes that are put together natively are byte for byte those of `Envelope.to_json`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock import VirtualClock, events
from penstock.events.message_id import new_message_id

text = st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text, lambda v: st.lists(v) | st.dictionaries(text, v)
)


class Anything(events.Event, type='A"\\ü\n', version=3):
    value: Any
    name: str | None = None


class Empty(events.Event, type="EncodingEmpty"):
    pass


class Raw(events.Event, type="EncodingRaw"):
    raw: msgspec.Raw


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_700_000_000_123)


@pytest.fixture
def broker(tmp_path: Path, clock: VirtualClock) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", clock=clock, fsync="never") as opened:
        yield opened


def check(store: events.EventStore, clock: VirtualClock, some: list[events.Event], metadata: Any) -> None:
    """Append, and compare with what `Envelope.wrap` gives for the same ids."""
    first = store.append("s", some, metadata=metadata).position - len(some)
    stored = list(store.read_all(first))
    assert [event.event for event in stored if not isinstance(event.event, Raw)] == [
        e for e in some if not isinstance(e, Raw)
    ]
    for event, given_event in zip(stored, some, strict=True):
        wrapped = events.Envelope.wrap(
            given_event, store.name, metadata=metadata, message_id=event.message_id, clock=clock
        )
        assert event.value == wrapped.to_json()
        assert UUID(event.message_id).version == 7


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    some=st.lists(st.builds(Anything, value=values, name=st.none() | text) | st.builds(Empty), min_size=1, max_size=5),
    metadata=st.none() | st.dictionaries(text, values, max_size=2),
    advance=st.integers(0, 2000),
    caused=st.booleans(),
)
def test_the_same_bytes(
    broker: penstock.Broker, clock: VirtualClock, some: list[events.Event], metadata: Any, advance: int, caused: bool
) -> None:
    store = events.EventStore(broker, "shop")
    clock.advance(advance / 1000)
    cause = events.Envelope.wrap(Empty(), 'q"', correlation_id='c"\n', metadata={"traceId": "t", "userId": "ü"})
    if caused:
        with events.handling(cause):
            check(store, clock, some, metadata)
    else:
        check(store, clock, some, metadata)


def test_large_data_and_raw_json_with_newlines(broker: penstock.Broker, clock: VirtualClock) -> None:
    store = events.EventStore(broker, "shop")
    raw = msgspec.Raw(b'{"a":\n1}')
    check(store, clock, [Anything("x" * 100_000), Raw(raw), Empty(), Raw(raw), Raw(msgspec.Raw(b"\n1\n"))], None)
    assert [event.version for event in store.read("s")] == [0, 1, 2, 3, 4]


def test_ids_rise_over_both_ways_of_making_them(broker: penstock.Broker) -> None:
    store = events.EventStore(broker, "shop")
    ids = []
    for _ in range(20):
        ids.append(new_message_id())
        store.append("s", [Empty()] * 50)
        ids += [event.message_id for event in store.read_all(store.position - 50)]
    assert ids == sorted(set(ids))
