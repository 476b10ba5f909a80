"""The files of the index: runs (see docs/event-store.md) and the list of those that count.

Invariants: a run never changes; the list names runs that follow on one another from offset 0.
Process safety: any number read; one writes, under the lock of the directory.
Crash policy: a file appears whole, by a rename, or not at all; what the list does not name is rubbish that the next
writer removes. A file that does not check out is left out of the list, and its part of the log is read again.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastcrc.crc32 import iscsi as crc32c

from penstock._native.mapping import Mapping
from penstock._native.runs import Run, directory_bits, fill_run, run_file_size
from penstock.errors import CorruptionError
from penstock.storage.segment_file import sync_directory

MAGIC = b"PSTKRUN\0"
FORMAT = 1
_FIELDS = struct.Struct("<8sIIqqqII")  # magic, format, level, rows, start, end, fingerprint, CRC of what is before it
HEADER_BYTES = 4096
LIST_NAME = "runs"
_LIST_HEADER = b"penstock event index 1\n"
LOCK_NAME = "lock"
SUFFIX = ".run"
TEMPORARY = ".new"


@dataclass(frozen=True, slots=True)
class RunHeader:
    """What a run says of itself."""

    count: int
    """Rows."""
    start: int
    """The first offset of the log that it covers."""
    end: int
    """The one behind the last."""
    level: int
    """How often its rows were merged."""
    fingerprint: int
    """CRC-32C of the last batch that it covers: whether the log still is the one that it was made of."""

    def to_bytes(self) -> bytes:
        """The file's first bytes."""
        fields = (MAGIC, FORMAT, self.level, self.count, self.start, self.end, self.fingerprint)
        raw = _FIELDS.pack(*fields, 0)[:-4]
        return raw + struct.pack("<I", crc32c(raw))

    @classmethod
    def from_bytes(cls, raw: bytes, path: str) -> RunHeader:
        """The header of a file. Raises `CorruptionError`."""
        if len(raw) < _FIELDS.size:
            raise CorruptionError("a run ends in its header", path, 0, f"{_FIELDS.size} bytes", len(raw))
        magic, version, level, count, start, end, fingerprint, checksum = _FIELDS.unpack_from(raw)
        computed = crc32c(raw[: _FIELDS.size - 4])
        if magic != MAGIC or version != FORMAT or checksum != computed:
            raise CorruptionError("this is no header of a run", path, 0, f"{MAGIC!r} {FORMAT} {computed:#x}", raw[:16])
        return cls(count, start, end, level, fingerprint)


def run_path(directory: Path, header: RunHeader) -> Path:
    """Where a run lies."""
    return directory / f"{header.start:020d}-{header.end:020d}-{header.level}{SUFFIX}"


def write_run(directory: Path, header: RunHeader, runs: list[Run], rows: bytes, durable: bool) -> Path:
    """Make the file of a run: of merged `runs`, or of sorted `rows`. Requires the directory's lock.

    Raises `DiskFullError`, `OSError`; there is no file then.
    """
    path = run_path(directory, header)
    fresh = path.with_suffix(TEMPORARY)
    size = run_file_size(header.count, directory_bits(header.count))
    try:
        with open(fresh, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else file.truncate(size)
            file.write(header.to_bytes())
            file.flush()
            fill_run(Mapping(str(fresh), size, True), runs, rows, header.count)
            if durable:
                os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return path


def open_run(path: Path) -> tuple[Run, RunHeader]:
    """Open the file of a run. Raises `CorruptionError`, `FileNotFoundError`."""
    with open(path, "rb") as file:
        header = RunHeader.from_bytes(file.read(_FIELDS.size), str(path))
    if path.name != run_path(path.parent, header).name:
        raise CorruptionError("a run has another's name", str(path), 0, run_path(path.parent, header).name, path.name)
    return Run(str(path), header.count, header.start, header.end, header.level), header


def read_list(directory: Path) -> list[str]:
    """Names of the runs that count, in the order of the log; none when the list is missing or damaged."""
    try:
        raw = (directory / LIST_NAME).read_bytes()
    except FileNotFoundError:
        return []
    body, _, checksum = raw[:-1].rpartition(b"\n")
    body += b"\n"
    if not raw.endswith(b"\n") or checksum != b"%08x" % crc32c(body) or not body.startswith(_LIST_HEADER):
        return []
    return body[len(_LIST_HEADER) :].decode("ascii", "replace").splitlines()


def write_list(directory: Path, names: Sequence[str], durable: bool) -> None:
    """Make these the runs that count; everybody sees the old list or this one. Requires the directory's lock."""
    body = _LIST_HEADER + "".join(f"{name}\n" for name in names).encode("ascii")
    fresh = directory / f"{LIST_NAME}{TEMPORARY}"
    with open(fresh, "wb") as file:
        file.write(body + b"%08x\n" % crc32c(body))
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.replace(fresh, directory / LIST_NAME)
    if durable:
        sync_directory(directory)


def remove_rubbish(directory: Path, names: Sequence[str]) -> None:
    """Remove what the list does not name. Requires the directory's lock."""
    keep = set(names)
    for path in directory.iterdir():
        if path.suffix == TEMPORARY or (path.suffix == SUFFIX and path.name not in keep):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
