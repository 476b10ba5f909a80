from collections.abc import Callable, Iterable
from typing import Any

from penstock._native.region import Region

DECOMPRESSED_LIMIT_BYTES: int

class Source:
    topic: str
    partition: int
    def __init__(self, topic: str, partition: int) -> None: ...

class Record:
    """One stored record. `key` and `value`: bytes or None. `headers`: a new list of (str, bytes or None)."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes | None]] = (),
    ) -> None: ...
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def headers(self) -> list[tuple[str, bytes | None]]: ...

class RecordMetadata:
    """Where a record was stored."""

    offset: int
    timestamp_ms: int
    def __init__(self, topic: str, partition: int, offset: int, timestamp_ms: int) -> None: ...
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...

class BatchWalker:
    def __init__(self, region: Region, limit_bytes: int = ...) -> None: ...

class RecordCursor:
    next_offset: int
    decompressed_limit_bytes: int
    def __init__(self, topic: str, partition: int) -> None: ...
    def feed(self, region: Region, from_offset: int) -> None: ...
    def next_record(self) -> Record | None: ...
    def take(self, out: list[Record], max_records: int) -> int: ...

def set_decompressor(decompress: Callable[[int, Any, int], bytes]) -> None: ...
