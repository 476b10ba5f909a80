"""A worker process of a command, and the tasks it can do. See `workers` for the protocol."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from penstock import PenstockError
from penstock.cli import check_task, consume_task, produce_task
from penstock.cli.output import discard_stdout
from penstock.cli.progress import Report

REPORT_EVERY_S = 0.05
TASKS: dict[str, Callable[[dict[str, Any], Report], dict[str, Any]]] = {
    "produce": produce_task.run,
    "consume": consume_task.run,
    "check-input": check_task.run_input,
    "check-topic": check_task.run_topic,
}


class Outcome(msgspec.Struct):
    """What a task gave, and when it was at work (monotonic seconds, comparable between processes)."""

    result: dict[str, Any]
    started: float
    stopped: float


def main(task: str, tell_fd: int) -> int:
    """Do one job. Returns the exit code."""
    job = msgspec.json.decode(sys.stdin.buffer.readline())
    last = 0.0

    def tell(message: object) -> None:
        os.write(tell_fd, msgspec.json.encode(message) + b"\n")

    def report(records: int, size_bytes: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_EVERY_S:
            last = now
            tell({"progress": [records, size_bytes]})

    started = time.monotonic()
    try:
        threading.Thread(target=_stop_when_left_alone, daemon=True).start()  # may interrupt from here on
        result = TASKS[task](job, report)
        tell({"progress": [result["records"], result["size_bytes"]]})
        tell(Outcome(result, started, time.monotonic()))
    except BrokenPipeError:  # nobody reads our output any more, or the command itself is gone
        discard_stdout()
        with contextlib.suppress(BrokenPipeError):
            tell({"broken_pipe": True})
        return 1
    except (PenstockError, OSError) as error:
        tell({"error": str(error)})
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to stop
    return 0


def _stop_when_left_alone() -> None:
    while os.read(0, 1024):
        pass
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGINT)  # to that thread, so that a blocking wait in it ends


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
