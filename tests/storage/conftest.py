"""A data directory made from sealed batches, without a broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import penstock.storage.compression  # noqa: F401
from penstock._native.builder import BatchBuilder
from penstock.storage.index_file import rebuild_indexes
from penstock.storage.segment_scan import scan_segment


def sealed(base: int, count: int, timestamp_ms: int, codec: int = 0, value_bytes: int = 20) -> bytes:
    builder = BatchBuilder()
    for place in range(count):
        value = f"{base + place}:".encode().ljust(value_bytes, b".")
        builder.append(value, b"key", [("h", b"1"), ("n", None)], timestamp_ms + place)
    builder.seal(codec)
    return base.to_bytes(8, "big") + bytes(builder)[8:]


@pytest.fixture
def seal() -> Callable[..., bytes]:
    return sealed


def write_segment(partition: Path, base: int, batches: list[bytes]) -> Path:
    partition.mkdir(parents=True, exist_ok=True)
    log = partition / f"{base:020d}.log"
    log.write_bytes(b"".join(batches))
    rebuild_indexes(log, base, scan_segment(log, base).batches)
    return log


@pytest.fixture
def write() -> Callable[..., Path]:
    return write_segment


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Partition `t-0` with segments at 0 (of every codec, 5 x 2 records), 10 (large enough for an index) and 30."""
    directory = tmp_path / "data"
    write_segment(directory / "t-0", 0, [sealed(2 * n, 2, 1000 + 10 * n, n) for n in range(5)])
    write_segment(directory / "t-0", 10, [sealed(10 + 2 * n, 2, 2000 + 10 * n, 0, 900) for n in range(10)])
    write_segment(directory / "t-0", 30, [sealed(30 + 2 * n, 2, 3000 + 10 * n) for n in range(3)])
    return directory
