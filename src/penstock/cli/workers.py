"""Running a task in several worker processes, each of which opens the same data directory.

A worker is `python -m penstock.cli.worker`: it reads its job as one JSON line from stdin, writes progress and its
result as JSON lines to a pipe, and stops as after Ctrl-C when its stdin ends, so that no worker outlives the command.
One job alone is done in this process.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from penstock import PenstockError
from penstock.cli.progress import Report
from penstock.cli.worker import TASKS, Outcome

_POLL_S = 0.05
_STOP_S = 10.0


class WorkerError(PenstockError, RuntimeError):
    """A worker process failed; the message is its error."""


def run_jobs(task: str, jobs: list[dict[str, Any]], on_progress: Report | None = None) -> list[Outcome]:
    """Do `task` (or the job's own `task`) for each job, all at once; the outcomes in the order of the jobs.

    `on_progress(records, size_bytes)` is called with the totals of all workers. Raises `WorkerError` (the other workers
    are stopped; what they stored stays stored), `BrokenPipeError`, `KeyboardInterrupt` after the workers stopped.
    """
    report = on_progress or (lambda records, size_bytes: None)
    if len(jobs) == 1:
        started = time.monotonic()
        result = TASKS[jobs[0].get("task", task)](jobs[0], report)
        return [Outcome(result, started, time.monotonic())]
    workers: list[_Worker] = []
    try:
        workers += (_Worker(job.get("task", task), number, job) for number, job in enumerate(jobs, 1))
        while any(worker.running for worker in workers):
            time.sleep(_POLL_S)
            report(sum(worker.records for worker in workers), sum(worker.size_bytes for worker in workers))
            for worker in workers:
                worker.check()
        return [worker.outcome() for worker in workers]
    finally:
        _stop(workers)


def seconds_of(outcomes: list[Outcome]) -> float:
    """From the first worker at work to the last one done; the start of the interpreters is not in it."""
    return max(outcome.stopped for outcome in outcomes) - min(outcome.started for outcome in outcomes)


class _Worker:
    """A worker process and the thread that listens to it."""

    def __init__(self, task: str, number: int, job: dict[str, Any]) -> None:
        self.records = 0
        self.size_bytes = 0
        self._number = number
        self._outcome: Outcome | None = None
        self._error: str | None = None
        self._broken_pipe = False
        listen, tell = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "penstock.cli.worker", task, str(tell)],
                stdin=subprocess.PIPE,
                pass_fds=(tell, *job.get("pass_fds", ())),
                process_group=0,  # Ctrl-C reaches the command only, which then stops its workers
            )
        except OSError:
            os.close(listen)
            raise
        finally:
            os.close(tell)
        self._listener = threading.Thread(target=self._listen, args=(listen,), daemon=True)
        self._listener.start()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died already: `check` says so
            self.process.stdin.write(msgspec.json.encode(job) + b"\n")
            self.process.stdin.flush()

    @property
    def running(self) -> bool:
        return self._listener.is_alive()

    def _listen(self, fd: int) -> None:
        with open(fd, "rb") as pipe:
            for line in pipe:
                message = msgspec.json.decode(line)
                if "progress" in message:
                    self.records, self.size_bytes = message["progress"]
                elif "error" in message:
                    self._error = message["error"]
                elif "broken_pipe" in message:
                    self._broken_pipe = True
                else:
                    self._outcome = msgspec.convert(message, Outcome)

    def check(self) -> None:
        """Raise `WorkerError` if this worker failed."""
        if self._broken_pipe:
            raise BrokenPipeError
        if self._error is not None:
            raise WorkerError(self._error)
        if not self.running and self._outcome is None:
            code = self.process.wait()
            raise WorkerError(f"worker process {self._number} ended with code {code} before its work was done")

    def outcome(self) -> Outcome:
        """The result; `running` must be False."""
        self.check()
        assert self._outcome is not None
        return self._outcome

    def hang_up(self) -> None:
        """Tell the worker to stop."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def join(self) -> None:
        """Wait until the worker ended; one that does not stop is killed."""
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._listener.join()


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.hang_up()
    for worker in workers:
        worker.join()


@contextlib.contextmanager
def shared_lock_file() -> Iterator[int]:
    """The descriptor of a nameless file that worker processes lock in turn (pass it on in the job's `pass_fds`)."""
    with tempfile.TemporaryFile() as file:
        yield file.fileno()
