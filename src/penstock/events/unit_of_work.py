"""The unit of work: what a command's handler appends to an event store is stored at the end, all or none.

While one is open in a thread or task, `EventStore` hands its appends to it (see `EventStore._append`). Reads see what
is stored, not what the unit holds; the versions of the streams that it holds go on from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from penstock.errors import InvalidArgumentError
from penstock.events.store.append_result import AppendResult
from penstock.events.store.encoding import PreparedTogether
from penstock.events.store.expected import NO_STREAM, Expected, fits, wrong_version
from penstock.events.store.stream_state import Stream

if TYPE_CHECKING:
    from penstock.events.store.event_store import EventStore

_current: ContextVar[UnitOfWork | None] = ContextVar("penstock_unit_of_work", default=None)


def current_unit(store: EventStore) -> UnitOfWork | None:
    """The unit of work that this thread or task has open over a store."""
    unit = _current.get()
    return unit if unit is not None and unit.store is store else None


class _Held:
    """What a unit holds for one stream."""

    def __init__(self, known: Stream, part: Any) -> None:
        self.known = known
        self.part = part._replace(events=PreparedTogether(part.events))

    @property
    def version(self) -> int:
        return self.known.last_version + len(self.part.events)

    def add(self, part: Any) -> None:
        self.part.events.add(part.events)


class UnitOfWork:
    """Appends to one store that are stored together. Used by one thread or task."""

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self._held: dict[str, _Held] = {}
        self._boundary: tuple[Any, int] | None = None
        self._results: list[tuple[AppendResult, str]] = []

    @contextmanager
    def open(self) -> Iterator[None]:
        """While the block runs, appends go to this unit."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def take(self, parts: list[Any], known: dict[str, Stream], unless: Any, after: int) -> list[AppendResult]:
        """Hold appends; the results they will have if nobody else appends before the end.

        Raises `WrongVersionError` when a stream is not as expected already now.
        """
        if unless is not None:
            if self._boundary is not None:
                raise InvalidArgumentError("append_if was called twice in one command; one boundary can be held")
            self._boundary = (unless, after)
        for part in parts:
            held = self._held.get(part.stream)
            self._check(part, known[part.stream] if held is None else held, part.expected)
        results = []
        for part in parts:
            held = self._held.get(part.stream)
            if held is None:
                held = self._held[part.stream] = _Held(known[part.stream], part)
            else:
                held.add(part)
            result = AppendResult(held.version, self.store.position + self._count)
            self._results.append((result, part.stream))
            results.append(result)
        return results

    def _check(self, part: Any, known: Stream | _Held, expected: Expected) -> None:
        if isinstance(known, Stream):
            if not fits(known, expected):
                raise wrong_version(known, expected)
        elif expected is NO_STREAM or (type(expected) is int and expected != known.version):
            raise wrong_version(Stream(part.stream, known.version, known.known.state), expected)

    @property
    def _count(self) -> int:
        return sum(len(held.part.events) for held in self._held.values())

    def commit(self, first: Any | None = None) -> dict[str, AppendResult]:
        """Store everything, `first` (a part) before the rest; results by stream. Raises `WrongVersionError`: then
        nothing was stored.
        """
        parts = [held.part for held in self._held.values()]
        if first is not None:
            parts.insert(0, first)
        if not parts:
            return {}
        unless, after = self._boundary or (None, 0)
        results = self.store._append(parts, unless, after)
        return {part.stream: result for part, result in zip(parts, results, strict=True)}

    def place_of(self, result: Any) -> int:
        """The place, from 1, that the event has among those of the unit which an append gave as its result; 0: none."""
        for early, stream in self._results:
            if result is early:
                before = 0
                for name, held in self._held.items():
                    if name == stream:
                        return int(before + early.version - held.known.last_version)
                    before += len(held.part.events)
        return 0

    def settled(self, result: Any, stored: dict[str, AppendResult]) -> Any:
        """A handler's result, with the place where its events were stored when it is what an append returned."""
        for early, stream in self._results:
            if result is early:
                return stored[stream]
        return result
