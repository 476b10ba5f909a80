"""LMDB."""

from __future__ import annotations

from bench.compare.model import CACHE, Side
from bench.compare.systems.base import Library


class Lmdb(Library):
    """A B+tree in a map, nearest to a bare store."""

    name = package = "lmdb"
    sides = (
        Side(
            "lmdb",
            "LMDB",
            "lmdb:Lmdb",
            "Python",
            "in process",
            "append=True, transactions of 10,000, sync=False with writemap; sync=True where fsync is asked for",
            CACHE,
        ),
    )
