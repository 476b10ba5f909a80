"""Turning the newest part of the index into runs, and merging runs, beside everything else.

A run of level 0 is what was in memory; as soon as `MERGED_RUNS` runs of one level lie side by side they become one of
the next level, so that there are few runs and a row is rewritten once a level.
Process safety: under the directory's lock; what another process did meanwhile is found in the list and not done again.
Crash policy: see `run_file`; a run or a merge that is lost is made again.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import NamedTuple

from penstock._native.postings import sort_rows
from penstock._native.runs import Run
from penstock.errors import CorruptionError
from penstock.events.store.run_file import (
    LOCK_NAME,
    RunHeader,
    open_run,
    read_list,
    remove_rubbish,
    write_list,
    write_run,
)
from penstock.events.store.store_log import StoreLog
from penstock.storage.directory import FileLock

MERGED_RUNS = 8
_log = logging.getLogger("penstock.events")


class Unwritten(NamedTuple):
    """Rows of the batches from `start` to before `end`, as `Tail.copy_rows` gives them."""

    rows: bytes
    start: int
    end: int


def load_runs(directory: Path, log: StoreLog) -> list[tuple[Run, RunHeader]]:
    """The runs that count and fit the log, from its beginning without a gap."""
    for _ in range(100):  # the files of an old list may go while they are opened
        found: list[tuple[Run, RunHeader]] = []
        names = read_list(directory)
        try:
            for name in names:
                run, header = open_run(directory / name)
                if header.start != (found[-1][1].end if found else 0):
                    raise CorruptionError("a run does not follow on the one before it", run.path, 0, header.start)
                found.append((run, header))
        except FileNotFoundError:
            if names != read_list(directory):
                continue
            _log.warning("a run of the index in %s is missing; its part of the log is read again", directory)
        except CorruptionError as error:
            _log.warning("the index is made anew from a damaged run on: %s", error)
        while found and log.fingerprint(found[-1][1].end) != found[-1][1].fingerprint:
            found.pop()  # made of a part of the log that the machine lost
        return found
    raise CorruptionError("the list of runs never stays the same", str(directory))


class Maintenance:
    """One thread at a time that writes and merges runs of one directory; started by the index when there is enough."""

    def __init__(self, directory: Path, log: StoreLog, durable: bool) -> None:
        self.directory = directory
        self.finished = False
        """A thread ended since the runs were loaded: there may be other ones."""
        self._log = log
        self._durable = durable
        self._lock = FileLock(directory / LOCK_NAME)
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether a thread is at it."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, rows: Unwritten) -> None:
        """Write these rows in a thread. Requires that none is running."""
        self._thread = threading.Thread(target=self._run, args=(rows,), name="penstock-event-index", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the thread is done."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def after_fork(self) -> None:
        """The thread stayed with the parent."""
        self._thread = None
        self._lock.release()

    def _run(self, rows: Unwritten) -> None:
        try:
            self.write(rows)
        except (OSError, CorruptionError):
            _log.exception("writing the index in %s failed; it stays in memory and is tried again", self.directory)
        finally:
            self.finished = True

    def write(self, rows: Unwritten) -> None:
        """Write a run of these rows and merge what is due. Raises `DiskFullError`, `OSError`."""
        with self._lock:
            runs = load_runs(self.directory, self._log)
            covered = runs[-1][1].end if runs else 0
            if rows.start <= covered < rows.end:
                runs.append(self._write_rows(rows, covered))
                self._publish(runs)
            while len(level := _last_level(runs)) >= MERGED_RUNS:
                runs = runs[: -len(level)] + self._merge(level)
                self._publish(runs)
            remove_rubbish(self.directory, [Path(run.path).name for run, _ in runs])

    def drop_from(self, damaged: Run) -> None:
        """Let no run count from this one on; their part of the log will be read again."""
        with self._lock:
            self._publish([pair for pair in load_runs(self.directory, self._log) if pair[1].end <= damaged.start])

    def _write_rows(self, rows: Unwritten, covered: int) -> tuple[Run, RunHeader]:
        ordered = sort_rows(rows.rows, covered)
        header = RunHeader(len(ordered) // 24, covered, rows.end, 0, self._log.fingerprint(rows.end))
        return open_run(write_run(self.directory, header, [], ordered, self._durable))

    def _merge(self, level: list[tuple[Run, RunHeader]]) -> list[tuple[Run, RunHeader]]:
        """The run that takes their place; with a damaged one among them those before it."""
        for place, (run, _) in enumerate(level):
            try:
                run.check()
            except CorruptionError as error:
                _log.warning("the index is made anew from a damaged run on: %s", error)
                return level[:place]
        first, last = level[0][1], level[-1][1]
        count = sum(header.count for _, header in level)
        header = RunHeader(count, first.start, last.end, first.level + 1, last.fingerprint)
        return [open_run(write_run(self.directory, header, [run for run, _ in level], b"", self._durable))]

    def _publish(self, runs: list[tuple[Run, RunHeader]]) -> None:
        write_list(self.directory, [Path(run.path).name for run, _ in runs], self._durable)


def _last_level(runs: list[tuple[Run, RunHeader]]) -> list[tuple[Run, RunHeader]]:
    """The newest runs that are of one level."""
    first = len(runs)
    while first > 0 and runs[first - 1][1].level == runs[-1][1].level:
        first -= 1
    return runs[first:]
