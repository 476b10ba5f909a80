"""Reading events: of a stream, of a query, of all; lazily, in parts that grow, forwards or backwards.

Every function gives what was there when it was called, however long reading takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime

from penstock.events.store import record_format as rf
from penstock.events.store.core import Core
from penstock.events.store.index import DamagedRunError, Postings, Row
from penstock.events.store.query import Query
from penstock.events.store.recorded import RecordedEvent

Found = Iterator[RecordedEvent]
_ROWS_FIRST = 16
_ROWS_MOST = 1024
_EVENTS_MOST = 500
_BACK_STEP = 1000


class Rows:
    """The rows of a term in parts; goes on with a new index when the old one turns out to be damaged.

    The same batches give the same rows, so that only the number of rows passed has to be kept.
    """

    def __init__(self, core: Core, term: bytes) -> None:
        self._core = core
        self._term = term
        self._postings: Postings = core.postings(term)
        self.count = len(self._postings)

    def slice(self, first: int, end: int) -> list[Row]:
        """Rows by their places."""
        while True:
            try:
                return self._postings.slice(first, end)
            except DamagedRunError as error:
                self._repair(error)

    def last_not_after(self, number: int, column: int) -> int:
        """See `Postings.last_not_after`."""
        while True:
            try:
                return self._postings.last_not_after(number, column)
            except DamagedRunError as error:
                self._repair(error)

    def _repair(self, error: DamagedRunError) -> None:
        with self._core.lock:
            self._core.index.repair(error)
            self._postings = self._core.index.postings(self._term)


def stream_events(core: Core, key: bytes, first: int, last: int, backwards: bool = False) -> Found:
    """The events of a stream of versions `first` to `last`."""
    rows = Rows(core, rf.STREAM_TERM + key)
    if backwards:
        return _backwards(core, rows, key, first, last)
    return itertools.chain.from_iterable(_forwards(core, rows, key, first, last))  # faster than `yield from`


def _forwards(core: Core, rows: Rows, key: bytes, first: int, last: int) -> Iterator[list[RecordedEvent]]:
    place = _first_place(core, rows, key, first) if first > 0 else 0
    size = _ROWS_FIRST
    while place < rows.count and first <= last:
        found = core.log.read_rows(rows.slice(place, min(place + size, rows.count)), key, first, last)
        yield found
        if found and found[-1].version >= last:
            return
        place += size
        size = _next_size(size, len(found))


def _next_size(size: int, events: int) -> int:
    """How many rows to read next: more, as long as their events stay few enough for the processor's caches."""
    return max(1, min(4 * size, _ROWS_MOST, size * _EVENTS_MOST // max(events, 1)))


def _first_place(core: Core, rows: Rows, key: bytes, first: int) -> int:
    """The row whose batch holds version `first` of the stream; an earlier one where hashes collide."""
    place = rows.last_not_after(first, 0)
    while place > 0:
        row = rows.slice(place, place + 1)
        if row[0][0] <= first and core.log.read_rows(row, key, row[0][0], row[0][0]):
            break
        place -= 1
    return place


def _backwards(core: Core, rows: Rows, key: bytes, first: int, last: int) -> Found:
    place = rows.count
    size = 1
    while place > 0 and first <= last:
        begin = max(0, place - size)
        found = core.log.read_rows(rows.slice(begin, place), key, first, last)
        yield from reversed(found)
        if found and found[0].version <= first:
            return
        place = begin
        size = _next_size(size, len(found))


def all_events(core: Core, start: int, end: int, backwards: bool = False) -> Found:
    """The events at offsets `start` to before `end`."""
    if not backwards:
        for part in core.log.read(start, end):
            yield from part
        return
    while start < end:
        begin = max(start, end - _BACK_STEP)
        yield from reversed(list(itertools.chain.from_iterable(core.log.read(begin, end))))
        end = begin


def matching_events(core: Core, query: Query, start: int, end: int) -> Found:
    """The events that match a query at offsets `start` to before `end`."""
    parts = [_candidates(core, types, tags, start, end) for types, tags in query.items]
    found = parts[0] if len(parts) == 1 else _merged(parts)
    return (event for event in found if query.matches(event.type, event.tags))


def _candidates(core: Core, types: frozenset[str], tags: frozenset[str], start: int, end: int) -> Found:
    """Events among which are all with these tags, and of one of these types."""
    if tags:
        rarest = min((Rows(core, rf.tag_term(tag)) for tag in sorted(tags)), key=lambda rows: rows.count)
        return term_events(core, rarest, start, end)
    parts = [term_events(core, Rows(core, rf.type_term(name)), start, end) for name in sorted(types)]
    return parts[0] if len(parts) == 1 else _merged(parts)


def _merged(parts: list[Found]) -> Found:
    """All of them in order, each once."""
    waiting = [(event.position, number, event) for number, part in enumerate(parts) if (event := next(part, None))]
    done = 0
    while waiting:
        position, number, event = least = min(waiting, key=lambda item: item[0])
        waiting.remove(least)
        if position > done:
            yield event
            done = position
        following = next(parts[number], None)
        if following is not None:
            waiting.append((following.position, number, following))


def term_events(core: Core, rows: Rows, start: int, end: int) -> Found:
    """All events of the batches that hold the term, at offsets `start` to before `end`."""
    place = rows.last_not_after(start, 1) if start > 0 and rows.count else 0
    size = 1
    done = start
    while place < rows.count:
        wanted = rows.slice(place, min(place + size, rows.count))
        if wanted[0][1] >= end:
            return
        found = core.log.read_rows(wanted, None, 0, 0)
        for event in found:
            if event.position > end:
                return
            if event.position > done:
                yield event
                done = event.position
        place += size
        size = _next_size(size, len(found))


def up_to(found: Found, until: datetime | None) -> Found:
    """Those before the first one that happened after `until`."""
    return found if until is None else itertools.takewhile(lambda event: event.timestamp <= until, found)
