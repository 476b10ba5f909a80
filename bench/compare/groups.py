"""Process groups that this command started: known from the moment they exist, so that none is left behind.

A group may be stopped (SIGSTOP) while it is not measured; killing reaches it all the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_started: dict[int, subprocess.Popen[bytes]] = {}


@contextmanager
def held() -> Iterator[None]:
    """Ctrl-C and SIGTERM come after the block, not within it: between a process and the note of it, or while ending."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program as the first of a group of its own."""
    with held():
        process: subprocess.Popen[bytes] = subprocess.Popen(list(command), start_new_session=True, **options)
        _started[process.pid] = process
    return process


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """A signal to the whole group, if there is any of it."""
    with suppress(ProcessLookupError):  # it ended by itself
        os.killpg(process.pid, number)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the group, at once."""
    with held():
        send(process, signal.SIGKILL)
        process.wait()
        _started.pop(process.pid, None)


def end_all() -> None:
    """Kill whatever is left."""
    with held():
        for process in list(_started.values()):
            end(process)
