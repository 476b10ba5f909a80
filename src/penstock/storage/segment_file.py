"""Names of the files of a segment: Kafka's layout.

Thread and process safety: any; nothing is kept. Crash policy: a name that was made survives a power cut once
`sync_directory` returned.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

SUFFIXES = (".log", ".index", ".timeindex")
INDEX_BYTES = 8
TIME_INDEX_BYTES = 12
CONTROL_FILE = "penstock.control"
TRANSACTIONS_FILE = "penstock.transactions"
MERGE_FILE = "penstock.cleaner.merge"
_LOG_NAME = re.compile(r"\d{20}\.log\Z")


def segment_path(directory: Path, base_offset: int, suffix: str) -> Path:
    """`<directory>/<20-digit base offset><suffix>`."""
    return directory / f"{base_offset:020d}{suffix}"


def has_file(directory: Path | str, name: str) -> bool:
    """Whether a partition's directory has such a file. (No `Path` is made: opening asks for thousands.)"""
    return os.path.exists(f"{directory}/{name}")  # noqa: PTH110


def segment_file_size(directory: Path | str, base_offset: int, suffix: str) -> int:
    """Bytes of one of a segment's files; -1 when there is none."""
    try:
        return os.stat(f"{directory}/{base_offset:020d}{suffix}").st_size  # noqa: PTH116
    except FileNotFoundError:
        return -1


def bases_in(directory: Path) -> list[int]:
    """Base offsets of the log files in a partition's directory, ascending; other files are left alone."""
    found = [int(name[:20]) for name in os.listdir(directory) if name.endswith(".log") and _LOG_NAME.match(name)]
    found.sort()
    return found


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
