"""Who consumes a queue, across processes: exclusive consumers, queues that go away with their last one, precedence.

A consumer holds a file lock for as long as it lives, which the kernel drops when its process dies.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from penstock.errors import LockedError
from penstock.storage.forks import PrivateFile

_FILE = "consumers.lock"


class Presence:
    """One consumer's place among those of a queue: `with Presence(directory, exclusive):`."""

    def __init__(self, directory: Path, exclusive: bool = False) -> None:
        self._path = directory / _FILE
        self._exclusive = exclusive
        self._file: PrivateFile | None = None

    def __enter__(self) -> Presence:
        self._file = PrivateFile(self._path)
        try:
            fcntl.flock(self._file.fd, (fcntl.LOCK_EX if self._exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            asked = "exclusively: others consume it" if self._exclusive else "too: somebody consumes it exclusively"
            raise LockedError(11, f"the queue of {self._path.parent.name} cannot be consumed {asked}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def abandoned(directory: Path) -> bool:
    """Whether there were consumers and none is left."""
    path = directory / _FILE
    return path.exists() and not _is_held(path)


class Waiting:
    """Consumers of a priority above 0 that wait for messages, as long as they do: `with Waiting(directory,
    priority):`."""

    def __init__(self, directory: Path, priority: int) -> None:
        self._path = directory / f"waiting-{priority:03d}.lock"
        self._file: PrivateFile | None = None

    def __enter__(self) -> Waiting:
        self._file = PrivateFile(self._path)
        fcntl.flock(self._file.fd, fcntl.LOCK_SH)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def somebody_waits_above(directory: Path, priority: int) -> bool:
    """Whether a consumer of a higher priority waits for messages now."""
    return any(
        int(path.stem.removeprefix("waiting-")) > priority and _is_held(path)
        for path in directory.glob("waiting-*.lock")
    )


def _is_held(path: Path) -> bool:
    file = PrivateFile(path, os.O_RDWR)
    try:
        fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        file.close()
    return False
