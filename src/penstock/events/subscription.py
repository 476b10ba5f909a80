"""Following a store: what is stored already, then what comes, without a gap or a repetition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Self

from penstock.aio.wake import Waker
from penstock.clock import SystemClock
from penstock.errors import ClosedError, InvalidArgumentError, InvalidTypeError
from penstock.events.checks import checked_text
from penstock.events.event import Event
from penstock.events.store.query import Query, check_tags
from penstock.events.store.record_format import is_in_category
from penstock.events.store.recorded import RecordedEvent

if TYPE_CHECKING:
    from penstock.events.store.event_store import EventStore

WAIT_SLICE_S = 1.0  # how long a closed store, or a bell that another machine cannot ring, may go unnoticed
VIRTUAL_SLICE_S = 0.01
POSITION_MAX = (1 << 62) - 1
Types = type[Event] | str | Iterable[type[Event] | str] | None


class EventFilter:
    """Which events of a store are wanted: of a stream or a category, of any of some types, with all of some tags."""

    def __init__(
        self,
        types: Types = None,
        category: str | None = None,
        stream: str | None = None,
        tags: Iterable[str] | None = None,
    ) -> None:
        for name, value in (("category", category), ("stream", stream)):
            if value is not None:
                checked_text(name, value)
        if category is not None and stream is not None:
            raise InvalidArgumentError("category and stream are given; one of them is allowed")
        if types is not None and (isinstance(types, (str, type))):
            types = [types]
        wanted = check_tags(tags or ())
        self.category, self.stream = category, stream
        self.query = Query(types or (), wanted) if types or wanted else None

    def matches(self, event: RecordedEvent) -> bool:
        """Whether an event is wanted."""
        if self.stream is not None and event.stream != self.stream:
            return False
        if self.category is not None and not is_in_category(event.stream, self.category):
            return False
        return self.query is None or self.query.matches(event.type, event.tags)

    def read(self, store: EventStore, after: int) -> Iterator[RecordedEvent]:
        """The wanted events stored after a position, as they are now."""
        found: Iterator[RecordedEvent]
        if self.stream is not None:
            found = (event for event in store.read(self.stream) if event.position > after)
        elif self.query is not None:
            found = store.query(self.query, after=after)
        elif self.category is not None:
            return store.read_category(self.category, after=after)
        else:
            return store.read_all(after=after)
        return filter(self.matches, found)

    def describe(self) -> dict[str, object]:
        """As JSON values."""
        types: list[str] = []
        tags: list[str] = []
        for some, all_of in self.query.items if self.query else ():
            types, tags = sorted(some), sorted(all_of)
        return {"types": types, "category": self.category, "stream": self.stream, "tags": tags}


class Subscription:
    """The events of a store from a position on: an iterator, and an async iterator. Made by `EventStore.subscribe`.

    Not safe for threads to share, but for `close`, which ends the iteration wherever it waits. Closing the store ends
    it as well. Any number of subscriptions, in any number of processes.
    """

    def __init__(self, store: EventStore, wanted: EventFilter, after: int, timeout: float | None) -> None:
        self._store = store
        self._wanted = wanted
        self._timeout = math.inf if timeout is None else timeout
        self._bell = store.broker._bell
        self._clock = store.broker.clock
        self._slice_s = WAIT_SLICE_S if type(self._clock) is SystemClock else VIRTUAL_SLICE_S
        self._looked_to = -1
        self._position = after
        self._reading: Iterator[RecordedEvent] | None = None
        self._reading_to = 0
        self._closed = False
        self._waker: Waker | None = None
        if wanted.stream is not None:
            self._read: Callable[[int], Iterator[RecordedEvent]] = _StreamReader(store, wanted)
        else:
            self._read = lambda position: wanted.read(store, position)

    @property
    def position(self) -> int:
        """Where to go on from (`after=`), when the last event that was given is done: its position, or a later one
        up to which nothing is wanted."""
        return self._position

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def _ready(self) -> RecordedEvent | None:
        """The next event that is stored; None: there is none yet."""
        while not self._closed:
            reading = self._reading
            if reading is None:
                end = self._store.position
                if end <= self._looked_to:
                    return None
                reading = self._reading = self._read(self._position)
                self._reading_to = end
            event = next(reading, None)
            if event is not None:
                self._position = event.position
                return event
            self._reading = None
            self._looked_to = self._reading_to
            self._position = max(self._position, self._reading_to)
        return None

    def _next(self) -> RecordedEvent | None:
        try:
            return self._ready()
        except ClosedError:  # the store's
            self.close()
            return None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RecordedEvent:
        """The next event, once there is one. Ends after `timeout` seconds without, and can be asked again."""
        event = self._next()
        deadline = None
        while event is None:
            seen = self._bell.arm()
            event = self._next()
            if event is not None:
                break
            now = self._clock.monotonic()
            deadline = now + self._timeout if deadline is None else deadline
            if self._closed or now >= deadline:
                raise StopIteration
            self._bell.wait(seen, min(deadline - now, self._slice_s))
        return event

    def receive(self, max_events: int = 100, wait: float | None = 0.0) -> list[RecordedEvent]:
        """Up to `max_events` as soon as there is one; [] when none came in `wait` seconds (None: for ever).
        Raises `InvalidArgumentError`."""
        if type(max_events) is not int or max_events < 1:
            raise InvalidArgumentError(f"max_events is {max_events!r}; give an int from 1")
        before, self._timeout = self._timeout, math.inf if wait is None else checked_seconds("wait", wait)
        try:
            events = [event] if (event := next(self, None)) is not None else []
        finally:
            self._timeout = before
        while events and len(events) < max_events and (event := self._next()) is not None:
            events.append(event)
        return events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RecordedEvent:
        """As `__next__`, without blocking the loop."""
        import asyncio

        event = self._next()
        deadline = None
        while event is None:
            if self._waker is None or self._waker.loop is not asyncio.get_running_loop():
                self._stop_waker()
                self._waker = Waker(self._bell, asyncio.get_running_loop())
            seen = self._bell.arm()
            event = self._next()
            if event is not None:
                break
            now = self._clock.monotonic()
            deadline = now + self._timeout if deadline is None else deadline
            if self._closed or now >= deadline:
                self._stop_waker()
                raise StopAsyncIteration
            await self._waker.wait(seen, min(deadline - now, self._slice_s))
        return event

    def close(self) -> None:
        """End it; who waits for an event is woken. May be repeated, and called from another thread."""
        if not self._closed:
            self._closed = True
            self._reading = None
            self._bell.ring()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        self._stop_waker()

    def _stop_waker(self) -> None:
        waker, self._waker = self._waker, None
        if waker is not None:
            waker.stop()

    def __repr__(self) -> str:
        return f"<Subscription to {self._store.name!r} at position {self._position}>"


class _StreamReader:
    """Reads on in a stream where it ended before."""

    def __init__(self, store: EventStore, wanted: EventFilter) -> None:
        self._store, self._wanted = store, wanted
        self._version = 0

    def __call__(self, position: int) -> Iterator[RecordedEvent]:
        for event in self._store.read(str(self._wanted.stream), from_version=self._version):
            self._version = event.version + 1
            if event.position > position and self._wanted.matches(event):
                yield event


def checked_seconds(name: str, value: object) -> float:
    """A number of seconds from 0, or an error that says what is allowed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"{name} is {value!r}; seconds (from 0) are needed")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = -1.0
    if not seconds >= 0:
        raise InvalidArgumentError(f"{name} is {value!r}; seconds (from 0, as a float can hold) are needed")
    return seconds
