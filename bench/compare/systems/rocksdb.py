"""RocksDB."""

from __future__ import annotations

from bench.compare.model import CACHE, Side
from bench.compare.systems.base import Library


class Rocksdb(Library):
    """A log-structured tree, through rocksdict."""

    name, package = "rocksdb", "rocksdict"
    sides = (
        Side(
            "rocksdb",
            "RocksDB (rocksdict)",
            "rocksdb:Rocksdb",
            "Python",
            "in process",
            "raw mode, write batches of 1,000, write buffer 128 MiB; WriteOptions.sync where fsync is asked for",
            CACHE,
        ),
    )
