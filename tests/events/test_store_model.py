"""The store against a plain dict of lists, over runs of the index, reopenings and colliding hashes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import penstock
from penstock import VirtualClock, events
from penstock._native.postings import set_hash_mask
from penstock.errors import ConcurrencyError
from penstock.events.store import index as store_index
from penstock.events.store import maintenance


class Noted(events.Event, type="ModelNoted"):
    number: int


class Marked(events.Event, type="ModelMarked"):
    number: int
    tags: list[str]


STREAMS = ["a", "a-1", "a-2", "b-1", "b-2", "ü-1"]
TAGS = ["x", "y", "z"]
streams = st.sampled_from(STREAMS)
counts = st.integers(1, 4)
tag_lists = st.lists(st.sampled_from(TAGS), unique=True, max_size=2)


@dataclass
class ModelStream:
    """A stream as the model has it."""

    rows: list[int] = field(default_factory=list)  # places in the model's log
    before: int = 0
    age_ms: int | None = None
    count: int | None = None
    deleted_at: int = -1
    tombstoned: bool = False

    @property
    def last(self) -> int:
        return len(self.rows) - 1

    @property
    def exists(self) -> bool:
        return self.last > self.deleted_at


class StoreMachine(RuleBasedStateMachine):
    """Appends, reads, limits, deletions; two stores on one directory take turns."""

    @initialize(mask=st.sampled_from([2**64 - 1, 0x7 << 61, 0]), rows=st.sampled_from([4, 40, 1 << 16]))
    def begin(self, mask: int, rows: int) -> None:
        set_hash_mask(mask)
        self.kept = store_index.ROWS_PER_RUN, maintenance.MERGED_RUNS
        store_index.ROWS_PER_RUN, maintenance.MERGED_RUNS = rows, 3
        self.directory = Path(tempfile.mkdtemp())
        self.clock = VirtualClock()
        self.brokers: list[penstock.Broker] = []
        self.stores: list[events.EventStore] = []
        for _ in range(2):
            self._open()
        self.log: list[tuple[str, int, str, int, tuple[str, ...], int] | None] = []  # None: a state, not an event
        self.model = {name: ModelStream() for name in STREAMS}
        self.number = 0

    def _open(self) -> None:
        broker = penstock.open(self.directory, clock=self.clock, fsync="never")
        self.brokers.append(broker)
        self.stores.append(events.EventStore(broker, "shop"))

    def teardown(self) -> None:
        if hasattr(self, "brokers"):
            for broker in self.brokers:
                broker.close()
            shutil.rmtree(self.directory)
            store_index.ROWS_PER_RUN, maintenance.MERGED_RUNS = self.kept
        set_hash_mask(2**64 - 1)

    def _events(self, count: int, tags: list[str] | None) -> list[Any]:
        self.number += count
        numbers = range(self.number - count, self.number)
        return [Noted(n) if tags is None else Marked(n, tags) for n in numbers]

    def _note(self, stream: str, some: list[Any], common: list[str]) -> tuple[int, int]:
        for event in some:
            tags = tuple(dict.fromkeys([*common, *getattr(event, "tags", [])]))
            self.model[stream].rows.append(len(self.log))
            version = self.model[stream].last
            self.log.append((stream, version, event.event_type, event.number, tags, self.clock.time_ms()))
        return self.model[stream].last, len(self.log)

    def _fits(self, stream: str, expected: Any) -> bool:
        known = self.model[stream]
        if expected is events.ANY:
            return True
        if expected is events.NO_STREAM:
            return not known.exists
        if expected is events.STREAM_EXISTS:
            return known.exists
        return bool(known.last == expected)

    def _expected(self, stream: str, kind: str) -> Any:
        last = self.model[stream].last
        choices = {"right": last if last >= 0 else events.NO_STREAM, "wrong": last + 1, "older": max(0, last - 1)}
        return choices.get(kind) or (choices[kind] if kind in choices else getattr(events, kind))

    kinds = st.sampled_from(["right", "wrong", "older", "ANY", "NO_STREAM", "STREAM_EXISTS"])
    which = st.integers(0, 1)
    lasts = st.none() | st.integers(0, 12)
    limits = st.none() | st.integers(0, 5)

    @rule(which=which, stream=streams, count=counts, kind=kinds, own=st.none() | tag_lists, common=tag_lists)
    def append(self, which: int, stream: str, count: int, kind: str, own: Any, common: list[str]) -> None:
        expected = self._expected(stream, kind)
        some = self._events(count, own)
        if self.model[stream].tombstoned:
            with pytest.raises(events.StreamDeletedError):
                self.stores[which].append(stream, some, expected, tags=common)
        elif self._fits(stream, expected):
            result = self.stores[which].append(stream, some, expected, tags=common)
            assert result == self._note(stream, some, common)
        else:
            with pytest.raises(events.WrongVersionError) as refused:
                self.stores[which].append(stream, some, expected, tags=common)
            known = self.model[stream]
            assert refused.value.actual_version == (known.last if known.exists else -1)

    @rule(which=which, names=st.lists(streams, unique=True, min_size=1), kind=kinds, count=counts)
    def append_many(self, which: int, names: list[str], kind: str, count: int) -> None:
        parts = {name: (self._events(count, None), self._expected(name, kind)) for name in names}
        if any(self.model[name].tombstoned for name in names):
            with pytest.raises((events.StreamDeletedError, ConcurrencyError)):
                self.stores[which].append_many(parts)
        elif all(self._fits(name, expected) for name, (_, expected) in parts.items()):
            results = self.stores[which].append_many(parts)
            assert results == {name: self._note(name, some, []) for name, (some, _) in parts.items()}
        else:
            with pytest.raises(ConcurrencyError):
                self.stores[which].append_many(parts)

    @rule(which=which, types=st.booleans(), tags=tag_lists, back=st.integers(0, 10), stream=streams)
    def append_if(self, which: int, types: bool, tags: list[str], back: int, stream: str) -> None:
        if self.model[stream].tombstoned or not (types or tags):
            return
        query = events.Query(types=[Marked] if types else [], tags=tags)
        after = max(0, len(self.log) - back)
        some = self._events(1, tags)
        found = [place for place in self._matching(query) if place >= after]
        if found:
            with pytest.raises(events.WrongVersionError) as refused:
                self.stores[which].append_if(some, unless=query, after=after, stream=stream)
            assert refused.value.position == found[0] + 1
        else:
            assert self.stores[which].append_if(some, unless=query, after=after, stream=stream) == self._note(
                stream, some, []
            )

    @rule(which=which, stream=streams, kind=kinds, count=counts, times=st.integers(1, 2))
    def the_same_envelopes_again(self, which: int, stream: str, kind: str, count: int, times: int) -> None:
        expected = self._expected(stream, kind)
        if self.model[stream].tombstoned or not self._fits(stream, expected):
            return
        some = self._events(count, None)
        envelopes = [events.Envelope.wrap(event, "model", clock=self.clock) for event in some]
        result = self.stores[which].append(stream, envelopes, expected)
        assert result == self._note(stream, some, [])
        for _ in range(times):
            assert self.stores[1 - which].append(stream, envelopes, expected) == result

    @rule(which=which, stream=streams, before=st.integers(0, 10))
    def truncate(self, which: int, stream: str, before: int) -> None:
        self._change(which, "truncate", stream, before, before=before)

    @rule(which=which, stream=streams, age=st.none() | st.integers(1, 20), count=st.none() | st.integers(1, 5))
    def set_limits(self, which: int, stream: str, age: int | None, count: int | None) -> None:
        self._change(which, "set_limits", stream, age, count, age_ms=None if age is None else age * 1000, count=count)

    @rule(which=which, stream=streams)
    def delete(self, which: int, stream: str) -> None:
        known = self.model[stream]
        self._change(which, "delete", stream, deleted_at=known.last if known.exists else known.deleted_at)

    @rule(which=which, stream=st.sampled_from(STREAMS[-2:]))
    def tombstone(self, which: int, stream: str) -> None:
        self._change(which, "tombstone", stream, tombstoned=True, deleted_at=self.model[stream].last)

    def _change(self, which: int, call: str, stream: str, *given: Any, **changes: Any) -> None:
        known = self.model[stream]
        if known.tombstoned:
            with pytest.raises(events.StreamDeletedError):
                getattr(self.stores[which], call)(stream, *given)
            return
        getattr(self.stores[which], call)(stream, *given)
        if any(getattr(known, name) != value for name, value in changes.items()):
            self.log.append(None)
        for name, value in changes.items():
            setattr(known, name, value)

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(which=which)
    def reopen(self, which: int) -> None:
        self.brokers.pop(which).close()
        self.stores.pop(which)
        self._open()
        self.brokers.reverse()
        self.stores.reverse()

    @rule(which=which)
    def flush(self, which: int) -> None:
        self.stores[which]._core.index.flush()

    @rule(which=which, stream=streams, first=st.integers(0, 12), last=lasts, back=st.booleans(), limit=limits)
    def read(self, which: int, stream: str, first: int, last: int | None, back: bool, limit: int | None) -> None:
        if self.model[stream].tombstoned:
            with pytest.raises(events.StreamDeletedError):
                self.stores[which].read(stream, first)
            return
        until = 1 << 40 if last is None else last
        wanted = [place for version, place in self._readable(stream) if first <= version <= until]
        wanted = wanted[::-1] if back else wanted
        found = self.stores[which].read(stream, first, last, backwards=back, limit=limit)
        assert self._seen(found) == [self._row(place) for place in wanted[:limit]]

    @rule(which=which, after=st.integers(0, 40), limit=st.none() | st.integers(0, 5), back=st.booleans())
    def read_all(self, which: int, after: int, limit: int | None, back: bool) -> None:
        wanted = [place for place, row in enumerate(self.log) if row is not None and place >= after]
        wanted = wanted[::-1] if back else wanted
        found = self.stores[which].read_all(after, limit, backwards=back)
        assert self._seen(found) == [self._row(place) for place in wanted[:limit]]

    @rule(which=which, types=st.booleans(), tags=tag_lists, other=tag_lists, after=st.integers(0, 40))
    def query(self, which: int, types: bool, tags: list[str], other: list[str], after: int) -> None:
        if not (types or tags):
            return
        query = events.Query(types=[Marked] if types else [], tags=tags)
        if other:
            query = query | events.Query(tags=other)
        wanted = [self._row(place) for place in self._matching(query) if place >= after]
        assert self._seen(self.stores[which].query(query, after)) == wanted

    @rule(which=which, category=st.sampled_from(["a", "b", "ü", "a-1"]), after=st.integers(0, 40))
    def read_category(self, which: int, category: str, after: int) -> None:
        places = [place for place, row in enumerate(self.log) if row and f"{row[0]}-".startswith(f"{category}-")]
        wanted = [self._row(place) for place in places if place >= after]
        assert self._seen(self.stores[which].read_category(category, after)) == wanted

    @invariant()
    def versions_agree(self) -> None:
        if not hasattr(self, "stores"):
            return
        for store in self.stores:
            assert store.position == len(self.log)
        for name, known in self.model.items():
            if not known.tombstoned:
                assert self.stores[0].version(name) == (known.last if known.exists else -1)

    @rule(which=which)
    def streams(self, which: int) -> None:
        alive = {name for name, known in self.model.items() if known.exists and not known.tombstoned}
        assert set(self.stores[which].streams()) == alive

    def _readable(self, stream: str) -> list[tuple[int, int]]:
        known = self.model[stream]
        first = max(known.before, known.deleted_at + 1)
        if known.count is not None:
            first = max(first, known.last + 1 - known.count)
        oldest = self.clock.time_ms() - known.age_ms if known.age_ms is not None else 0
        rows = list(enumerate(known.rows))[first:]
        return [(version, place) for version, place in rows if (self.log[place] or [0] * 6)[5] >= oldest]

    def _matching(self, query: events.Query) -> list[int]:
        return [place for place, row in enumerate(self.log) if row and query.matches(row[2], row[4])]

    def _row(self, place: int) -> Any:
        return (place + 1, self.log[place])

    @staticmethod
    def _seen(found: Iterator[events.RecordedEvent]) -> list[Any]:
        return [(e.position, (e.stream, e.version, e.type, e.data["number"], e.tags, e.timestamp_ms)) for e in found]


StoreMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
TestStoreModel = StoreMachine.TestCase


@pytest.mark.slow
class TestStoreModelLong(StoreMachine.TestCase):  # type: ignore[misc,name-defined]
    """The same for longer, with other numbers each time."""

    settings = settings(
        max_examples=1500, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
    )
