"""A segment's `.txnindex`: the aborted transactions whose marker lies in it, in Kafka's layout (34 bytes an entry).

Invariant: entries stand in the order of their markers; a transaction may stand twice, which says nothing more. Thread
and process safety: reading, any; writing requires the writer lock of the partition. Crash policy: an entry is added
before readers may pass the marker; a cut one is passed over by readers and overwritten by the next.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from penstock._native.mapping import os_error
from penstock.storage.index_file import replace_bytes

SUFFIX = ".txnindex"
_ENTRY = struct.Struct(">hqqqq")
_VERSION = 0


class AbortedTransaction(NamedTuple):
    """An aborted transaction of one partition, from its first possible offset to its marker's."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


class AbortedTransactions:
    """Tells whether a batch belongs to an aborted transaction: `(producer_id, base_offset) in aborted`."""

    def __init__(self, entries: Iterable[AbortedTransaction]) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        for entry in entries:
            self._ranges.setdefault(entry.producer_id, []).append((entry.first_offset, entry.last_offset))

    def __contains__(self, batch: tuple[int, int]) -> bool:
        producer_id, base_offset = batch
        return any(first <= base_offset <= last for first, last in self._ranges.get(producer_id, ()))


def append_entry(path: Path, entry: AbortedTransaction) -> None:
    """Add an entry. Requires the writer lock. What a crash left of another one is cut off before it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(fd).st_size
            os.pwrite(fd, _ENTRY.pack(_VERSION, *entry), size - size % _ENTRY.size)
        finally:
            os.close(fd)
    except OSError as error:
        raise os_error(error.errno or 0, str(path), "writing") from error


def merge_entries(path: Path, *others: Path) -> None:
    """Add the entries of `others` to `path`, which a crash leaves as it was or whole."""
    more = [entry for other in others for entry in read_entries(other)]
    if more:
        known = read_entries(path)
        found = [*known, *(entry for entry in more if entry not in known)]
        replace_bytes(path, b"".join(_ENTRY.pack(_VERSION, *entry) for entry in found))


def read_entries(path: Path) -> list[AbortedTransaction]:
    """The entries of a `.txnindex`; none when there is no such file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = len(data) - len(data) % _ENTRY.size
    return [AbortedTransaction(*fields[1:]) for fields in _ENTRY.iter_unpack(data[:whole])]
