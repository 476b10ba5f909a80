"""The data directory: its format version, who has it open, and what happened since the last time.

Invariants: `meta.properties` names the format version; `open.lock` is held while a broker opens or closes; every broker
holds `alive.lock` shared, so the kernel tells at once when the last one died. The first broker to open counts up the
incarnation, after which each partition is made ready again by whoever opens it first.

Thread and process safety: any process, by the kernel's file locks. A `FileLock` is one holder's, a `SharedLock` any
thread's; both are free again when their process dies, and are not carried over a fork.
Crash policy: nothing here needs repair; both files of state are replaced whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from penstock._native.mapping import os_error
from penstock.errors import DataDirectoryError, FormatVersionError, LockedError
from penstock.storage.forks import PrivateFile

FORMAT_VERSION = 1
META_FILE = "meta.properties"
BELLS_FILE = "bells"
BELLS_BYTES = 65536
_INCARNATION_FILE = "incarnation"
_OPEN_LOCK = "open.lock"
_ALIVE_LOCK = "alive.lock"


def boot_id() -> str:
    """An identifier that changes whenever the machine starts, 36 characters."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import subprocess

        out = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)
        return (out.stdout.strip() or "unknown").ljust(36, "-")[:36]


def replace_file(path: Path, text: str, durable: bool) -> None:
    """Write a small file so that a crash leaves the old or the new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise os_error(error.errno or 0, str(path), "writing") from error


def read_meta(path: Path) -> dict[str, str]:
    """The properties of `meta.properties`; {} when there is none."""
    try:
        text = (path / META_FILE).read_text(errors="replace")
    except FileNotFoundError:
        return {}
    lines = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in lines}


def check_format(path: Path) -> None:
    """Refuse a directory of a newer format with `FormatVersionError`."""
    meta = read_meta(path)
    if not meta:
        return
    version = meta.get("penstock.format", "")
    if not version.isdigit() or not 1 <= int(version) <= FORMAT_VERSION:
        raise FormatVersionError(
            f"{path / META_FILE} says penstock.format={version or 'nothing'}; this version reads 1 to {FORMAT_VERSION}"
        )


def _prepare(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise DataDirectoryError(20, f"{path} is not a directory") from error
    except OSError as error:
        raise DataDirectoryError(error.errno, f"{path} cannot be made: {error.strerror}") from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        owner = path.stat().st_uid
        raise DataDirectoryError(13, f"{path} (owner uid {owner}) is not writable for uid {os.geteuid()}")
    check_format(path)
    probe = path / META_FILE
    if not probe.exists():
        replace_file(
            probe, f"# Penstock data directory\npenstock.format={FORMAT_VERSION}\ncluster.id={uuid.uuid4()}\n", True
        )


def _open_lock_file(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise os_error(error.errno or 0, str(path), "opening") from error


def _private_lock_file(path: Path) -> PrivateFile:
    try:
        return PrivateFile(path)
    except OSError as error:
        raise os_error(error.errno or 0, str(path), "opening") from error


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    file = _private_lock_file(path / _OPEN_LOCK)
    try:
        fcntl.flock(file.fd, fcntl.LOCK_EX)
        yield
    finally:
        file.close()


def _try_exclusive(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Directory:
    """An open data directory: holds `alive.lock` until `close`. `incarnation` counts first openings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.incarnation = 0
        self._alive_fd = -1
        _prepare(path)
        self._join()

    def _join(self) -> None:
        with _opening(self.path):
            self._alive_fd = _open_lock_file(self.path / _ALIVE_LOCK)
            try:
                file = self.path / _INCARNATION_FILE
                if _try_exclusive(self._alive_fd):
                    self._first(file)
                fcntl.flock(self._alive_fd, fcntl.LOCK_SH)
                self.incarnation = int(file.read_text())
            except BaseException:
                self.close()
                raise

    def _first(self, file: Path) -> None:
        previous = file.read_text() if file.exists() else "0"
        self._silence_bells()
        replace_file(file, str(int(previous if previous.isdigit() else "0") + 1), False)

    def _silence_bells(self) -> None:
        """Fill their file with zeros, in place: on a full disk there is room for what is there already."""
        bells = self.path / BELLS_FILE
        fd = _open_lock_file(bells)
        try:
            os.ftruncate(fd, BELLS_BYTES)
            if os.pwrite(fd, bytes(BELLS_BYTES), 0) < BELLS_BYTES:
                raise os_error(errno.ENOSPC, str(bells), "writing")
        except OSError as error:
            raise os_error(error.errno or 0, str(bells), "writing") from error
        finally:
            os.close(fd)

    def rejoin(self) -> None:
        """In a forked child: hold a lock of its own, then let go of the parent's (no moment without one)."""
        inherited = self._alive_fd
        self._alive_fd = _open_lock_file(self.path / _ALIVE_LOCK)
        fcntl.flock(self._alive_fd, fcntl.LOCK_SH)
        os.close(inherited)

    def close(self) -> None:
        """Stop being one of the live brokers. May be repeated."""
        if self._alive_fd >= 0:
            os.close(self._alive_fd)
            self._alive_fd = -1


@contextlib.contextmanager
def exclusive(path: Path | str) -> Iterator[None]:
    """Hold the directory alone, without a broker. Raises `LockedError` while any process has it open."""
    path = Path(path)
    if not path.is_dir():
        raise DataDirectoryError(20, f"{path} is not a directory")
    check_format(path)
    with _opening(path):
        file = _private_lock_file(path / _ALIVE_LOCK)
        try:
            if not _try_exclusive(file.fd):
                raise LockedError(11, f"{path} is open in another process (or in this one); close it first")
            yield
        finally:
            file.close()


class FileLock:
    """An exclusive lock between processes on a file: `with FileLock(path):`, or `try_acquire` for an election.

    The child of a fork has none of its parent's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: PrivateFile | None = None

    def __enter__(self) -> FileLock:
        self._file = _private_lock_file(self._path)
        fcntl.flock(self._file.fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def try_acquire(self) -> bool:
        """True when this handle holds the lock (now or already), False when another process does."""
        if self._file is not None and self._file.fd >= 0:
            return True
        file = _private_lock_file(self._path)
        if not _try_exclusive(file.fd):
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Let go; the kernel does the same when the process dies."""
        if self._file is not None:
            self._file.close()
            self._file = None


class SharedLock:
    """Excludes threads and processes alike; the file stays open, so that taking it is two short system calls.

    May be taken again by the thread that has it. The kernel lets go of it when the process dies.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: PrivateFile | None = None
        self._depth = 0
        self._thread = threading.RLock()

    def __enter__(self) -> SharedLock:
        self._thread.acquire()
        self._depth += 1
        if self._depth == 1:
            try:
                if self._file is None:
                    self._file = _private_lock_file(self._path)
                fcntl.flock(self._file.fd, fcntl.LOCK_EX)
            except BaseException:
                self._depth = 0
                self._thread.release()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._file is not None:
            fcntl.flock(self._file.fd, fcntl.LOCK_UN)
        self._thread.release()

    @property
    def nested(self) -> bool:
        """Whether the holder took it more than once."""
        return self._depth > 1

    def after_fork(self) -> None:
        """In the child: open anew; the parent's descriptor is closed."""
        self.close()
        self._thread = threading.RLock()
        self._depth = 0

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.close()
