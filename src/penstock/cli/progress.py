"""Progress bars on stderr, only when it is a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from penstock.cli.output import bytes_text, stderr


class Report(Protocol):
    """How work tells its progress: totals so far (not differences)."""

    def __call__(self, records: int, size_bytes: int) -> None: ...


class ProgressBar:
    """A bar with throughput: `with ProgressBar("storing", total) as bar: bar.update(done, records, size_bytes)`.

    `total`: what `done` counts to; None when it is not known. Shows nothing unless `enabled` and stderr is a terminal.
    """

    def __init__(self, label: str, total: int | None, enabled: bool = True) -> None:
        self._progress: Progress | None = None
        self._started = time.monotonic()
        if enabled and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=stderr(), transient=True)
            self._task = self._progress.add_task(label, total=total, rate="")

    def __enter__(self) -> ProgressBar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, done: int, records: int, size_bytes: int) -> None:
        """Show totals so far."""
        if self._progress is not None:
            seconds = max(time.monotonic() - self._started, 1e-3)
            rate = f"{records:,} records, {records / seconds:,.0f}/s, {bytes_text(size_bytes / seconds)}/s"
            self._progress.update(self._task, completed=done, rate=rate)
