"""Where the events of a stream, a type, a tag, a category lie in the log. Derived from it; never the truth.

Purpose: tens of millions of streams in one log. Recent batches are in memory (`Tail`), older ones in sorted runs on the
disk that all processes share; looking a term up is one search a run.
Invariants: runs cover the log from 0 to where the tail begins; the tail ends where this process last looked.
Thread safety: the owner's lock, but for `Postings`, which never change. Process safety: see `maintenance`.
Crash policy: what no run covers is read from the log again; so is what a damaged run covered.
"""

from __future__ import annotations

import bisect
import logging
from pathlib import Path

from penstock._native.builder import BatchBuilder
from penstock._native.postings import Tail, hash_term
from penstock._native.runs import Run
from penstock.errors import CorruptionError
from penstock.events.store.maintenance import Maintenance, Unwritten, load_runs
from penstock.events.store.store_log import StoreLog

ROWS_PER_RUN = 1 << 16
BYTES_PER_RUN = 32 << 20
_BACKLOG = 4
_log = logging.getLogger("penstock.events")

Row = tuple[int, int]
"""(number, offset): of a stream's events the version of the first in the batch, else 0; where in the log they begin."""


class DamagedRunError(CorruptionError):
    """A block of a run does not match its checksum: the index has to be made anew from there."""

    run: Run


class Postings:
    """The rows of one term, as a sequence in the order of the log. Does not change when the index does."""

    def __init__(self, parts: list[tuple[Run, int, int]], tail: list[Row]) -> None:
        self._parts = parts
        self._tail = tail
        self._bounds = [0]
        for _, low, high in parts:
            self._bounds.append(self._bounds[-1] + high - low)

    def __len__(self) -> int:
        return self._bounds[-1] + len(self._tail)

    def __getitem__(self, place: int) -> Row:
        return self.slice(place, place + 1)[0]

    def slice(self, first: int, end: int) -> list[Row]:
        """The rows from `first` to before `end`. Raises `DamagedRunError`."""
        found: list[Row] = []
        part = bisect.bisect_right(self._bounds, first) - 1
        while first < end and part < len(self._parts):
            run, low, _ = self._parts[part]
            upto = min(end, self._bounds[part + 1])
            try:
                found += run.slice(low + first - self._bounds[part], low + upto - self._bounds[part])
            except CorruptionError as error:
                raise damaged(run, error) from error
            first = upto
            part += 1
        if first < end:
            found += self._tail[first - self._bounds[-1] : end - self._bounds[-1]]
        return found

    def last_not_after(self, number: int, column: int = 0) -> int:
        """Place of the last row whose `column` (0 number, 1 offset) is not above `number`; 0 when there is none."""
        return max(0, bisect.bisect_right(self, number, key=lambda row: row[column]) - 1)


def damaged(run: Run, error: CorruptionError) -> DamagedRunError:
    """The error with the run that has to go."""
    found = DamagedRunError(error.message, error.path, error.position, error.expected, error.got)
    found.run = run
    return found


class Index:
    """The index of a store's log, kept in `directory`."""

    def __init__(self, log: StoreLog, directory: Path, durable: bool) -> None:
        directory.mkdir(exist_ok=True)
        self.log = log
        self._maintenance = Maintenance(directory, log, durable)
        self._runs: list[Run] = []
        self._tail = Tail()
        self._load()

    @property
    def end(self) -> int:
        """The offset up to which the index knows the log."""
        return self._tail.end

    def _load(self) -> None:
        self._maintenance.finished = False
        self._runs = [run for run, _ in load_runs(self._maintenance.directory, self.log)]
        covered = self._runs[-1].end if self._runs else 0
        if self._tail.start <= covered <= self._tail.end:
            self._tail.drop_before(covered)
        else:
            self._tail = Tail(covered)

    def catch_up(self) -> int:
        """Learn what was stored since; returns `end`, which is the log's."""
        end = self.log.end
        while self._tail.end < end:
            region = None
            tail = self._tail
            while self._tail is tail and tail.end < end:
                region = self.log.fetch(tail.end, region)
                tail.feed(region, self.log.batch_bytes_max)
                self._make_room()
        if self._maintenance.finished:
            self._load()
            return self.catch_up()
        return self._tail.end

    def learn(self, builder: BatchBuilder, begin: int) -> None:
        """A batch was stored at offset `begin` out of this builder: it need not be read again."""
        if self._tail.end == begin:
            self._tail.feed_built(builder)
            self._make_room()

    def _make_room(self) -> None:
        """Have rows written when there are many; wait for it when there are far too many."""
        tail = self._tail
        if tail.count < ROWS_PER_RUN and tail.size_bytes < BYTES_PER_RUN:
            return
        if self._maintenance.running:
            if tail.count < _BACKLOG * ROWS_PER_RUN and tail.size_bytes < _BACKLOG * BYTES_PER_RUN:
                return
            self._maintenance.wait()
        if self._maintenance.finished:
            self._load()
            tail = self._tail
        if tail.count >= ROWS_PER_RUN or tail.size_bytes >= BYTES_PER_RUN:
            self._maintenance.start(Unwritten(tail.copy_rows(), tail.start, tail.end))

    def postings(self, term: bytes) -> Postings:
        """The rows of a term."""
        h = hash_term(term)
        while True:
            try:
                parts = [(run, *found) for run in self._runs if (found := _find(run, h)) is not None]
                return Postings(parts, self._tail.find(h))
            except DamagedRunError as error:
                self.repair(error)

    def newest(self, term: bytes) -> Row | None:
        """The last row of a term."""
        h = hash_term(term)
        found = self._tail.newest(h)
        if found is not None:
            return found
        for run in reversed(self._runs):
            try:
                rows = run.find(h)
                if rows is not None:
                    return run.row(rows[1] - 1)
            except CorruptionError as error:
                self.repair(damaged(run, error))
                return self.newest(term)
        return None

    def repair(self, error: DamagedRunError) -> None:
        """Let go of a damaged run and what follows it, and read that part of the log again."""
        _log.warning("the index is made anew from offset %d on: %s", error.run.start, error)
        self._maintenance.wait()
        self._maintenance.drop_from(error.run)
        self._runs, self._tail = [], Tail()
        self._load()
        self.catch_up()

    def flush(self) -> None:
        """Write what is in memory to a run, now. Raises `DiskFullError`, `OSError`."""
        self.catch_up()
        self._maintenance.wait()
        if self._tail.end > self._tail.start:
            self._maintenance.write(Unwritten(self._tail.copy_rows(), self._tail.start, self._tail.end))
        self._load()

    def close(self) -> None:
        """Wait for what is being written, and let go of the files."""
        self._maintenance.wait()
        self._runs = []

    def after_fork(self) -> None:
        """In the child: another thread may have been in the middle of it."""
        self._maintenance.after_fork()
        self._tail = Tail()
        self._load()


def _find(run: Run, h: int) -> tuple[int, int] | None:
    try:
        return run.find(h)
    except CorruptionError as error:
        raise damaged(run, error) from error
