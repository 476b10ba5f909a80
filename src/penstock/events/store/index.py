"""Where the events of a stream, a type, a tag, a category lie in the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from penstock._native.records import Record
from penstock.events.store import record_format as rf
from penstock.events.store.store_log import StoreLog

Row = tuple[int, int]
"""(number, offset): of a stream's events the first version in the batch, else 0; where in the log they begin."""


class Index:
    """Derived from the log; knows it up to `end`."""

    def __init__(self, log: StoreLog) -> None:
        self.log = log
        self.end = 0
        self._rows: defaultdict[bytes, list[Row]] = defaultdict(list)

    def catch_up(self) -> int:
        """Learn what was stored since; returns the log's end."""
        end = self.log.end
        if end != self.end:
            for record in self.log.read(self.end, end):
                self._add(record)
            self.end = end
        return end

    def _add(self, record: Record) -> None:
        headers = record.headers
        found = dict(headers)
        if record.key is None:
            return
        stream = record.key.decode()
        if rf.STATE in found:
            self._rows[rf.state_term(stream)].append((0, record.offset))
            self._rows[rf.ALL_STATES].append((0, record.offset))
        elif rf.is_event(record):
            self._rows[rf.stream_term(stream)].append((int(found[rf.VERSION] or b""), record.offset))
            terms = [rf.type_term((found[rf.TYPE] or b"").decode()), rf.category_term(rf.category_of(stream))]
            terms += [rf.tag_term((value or b"").decode()) for name, value in headers if name == rf.TAG]
            for term in dict.fromkeys(terms):
                self._rows[term].append((0, record.offset))

    def newest(self, term: bytes) -> Iterator[Row]:
        """The rows of a term, the newest first."""
        return reversed(self._rows.get(term, []))

    def rows(self, term: bytes) -> list[Row]:
        return self._rows.get(term, [])
