"""Making and reading batches without a log around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest

from penstock._native.builder import BatchBuilder
from penstock._native.records import Record, RecordCursor
from penstock._native.region import Region
from penstock.storage import compression

assert compression  # importing it registers the codecs


class Given(NamedTuple):
    """A record to be written."""

    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] | None = None
    timestamp_ms: int = 1_000


@pytest.fixture(scope="session")
def given() -> type[Given]:
    """The record type that `seal` takes: value, key, headers, timestamp_ms."""
    return Given


@pytest.fixture(scope="session")
def seal() -> Callable[..., bytes]:
    """`seal(records, codec=0, base_offset=0, **how)`: the bytes of one stored batch."""

    def make(records: Iterable[Given], codec: int = 0, base_offset: int = 0, **how: Any) -> bytes:
        builder = BatchBuilder()
        for value, key, headers, timestamp_ms in records:
            builder.append(value, key, headers, timestamp_ms)
        builder.seal(codec, **how)
        return base_offset.to_bytes(8, "big") + bytes(builder)[8:]

    return make


@pytest.fixture(scope="session")
def parse() -> Callable[..., list[Record]]:
    """`parse(data, from_offset=0, limit_bytes=None)`: every record in whole batches."""

    def read(data: bytes, from_offset: int = 0, limit_bytes: int | None = None) -> list[Record]:
        cursor = RecordCursor("orders", 3)
        if limit_bytes is not None:
            cursor.decompressed_limit_bytes = limit_bytes
        cursor.feed(Region.from_buffer(data, "a.log", 100), from_offset)
        out: list[Record] = []
        while cursor.take(out, 1000):
            pass
        return out

    return read
