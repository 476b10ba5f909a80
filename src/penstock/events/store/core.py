"""What a store knows: its log, the index, and the streams it looked at lately.

Thread safety: everything here under `lock`; postings and logs may be read without it. Process safety: nothing that is
remembered here is older than `index.end`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from penstock._native.builder import BatchBuilder
from penstock.errors import ClosedError
from penstock.events.errors import StreamDeletedError
from penstock.events.store import record_format as rf
from penstock.events.store.index import Index, Postings
from penstock.events.store.store_log import StoreLog
from penstock.events.store.stream_state import NOTHING, Stream, StreamState

_REMEMBERED_STREAMS = 50_000


class Core:
    """The parts of a store that its sides share."""

    def __init__(self, log: StoreLog) -> None:
        self.log = log
        self.lock = threading.RLock()
        self.index = Index(log, log.directory, log.broker.fsync != "never")
        self.closed = False
        self.spare_builder: BatchBuilder | None = None
        self._known: dict[str, Stream] = {}
        self._known_end = self.index.end
        self._any_state: bool | None = None
        self._reader = log.reader()

    def check_open(self) -> None:
        """Raises `ClosedError`."""
        if self.closed:
            raise ClosedError(f"event store {self.log.topic.name!r} was closed")

    def catch_up(self) -> int:
        """Learn what was stored since; returns the log's end. Raises `ClosedError`."""
        if self.closed:
            self.check_open()
        end = self.index.catch_up()
        if end != self._known_end:
            self._forget()
        return end

    def appended(self, builder: BatchBuilder, begin: int, end: int, streams: Iterable[Stream]) -> None:
        """What is in the builder is in the log from `begin` to `end`: these streams are so now."""
        self.index.learn(builder, begin)
        own = self._known_end == begin and len(self._known) < _REMEMBERED_STREAMS
        if self.index.catch_up() == end and own:  # nobody else's came
            for stream in streams:
                self._known[stream.name] = stream
            self._known_end = end
        else:
            self._forget()

    def _forget(self) -> None:
        self._known.clear()
        self._known_end = self.index.end
        self._any_state = self._any_state or None

    def postings(self, term: bytes) -> Postings:
        """The rows of a term, as far as the index knows."""
        with self.lock:
            return self.index.postings(term)

    def stream(self, name: str) -> Stream:
        """A stream as it is at the index's end."""
        if self.index.end != self._known_end:  # it was repaired, and came further
            self._forget()
        known = self._known.get(name)
        if known is None:
            key = name.encode()
            known = self._known[name] = Stream(name, self._last_version(key), self._state(key))
        return known

    def living(self, name: str) -> Stream:
        """The same, or `StreamDeletedError` when it was deleted for ever."""
        known = self.stream(name)
        if known.tombstoned:
            raise StreamDeletedError(f"stream {name!r} was deleted for ever (tombstone)")
        return known

    def _last_version(self, key: bytes) -> int:
        term = rf.STREAM_TERM + key
        row = self.index.newest(term)
        if row is None:
            return -1
        version = self._reader.last_version(self.log.partition, row[1], key)
        if version >= 0:
            return version
        postings = self.index.postings(term)  # another stream has the same hash
        for place in reversed(range(len(postings))):
            version = self._reader.last_version(self.log.partition, postings[place][1], key)
            if version >= 0:
                return version
        return -1

    def _state(self, key: bytes) -> StreamState:
        if self._any_state is None:
            self._any_state = self.index.newest(rf.ALL_STATES) is not None
        if self._any_state:
            postings = self.index.postings(rf.STATE_TERM + key)
            for place in reversed(range(len(postings))):
                record = self.log.record(postings[place][1])
                if record.key == key and rf.is_state(record.headers):  # else another term has the same hash
                    return StreamState.from_json(record.value or b"")
        return NOTHING

    def close(self) -> None:
        """Let go of the index's files."""
        with self.lock:
            self.closed = True
            self.index.close()

    def after_fork(self) -> None:
        """In the child."""
        self.lock = threading.RLock()
        self.spare_builder = None
        if not self.closed:
            self.index.after_fork()
        self._forget()
