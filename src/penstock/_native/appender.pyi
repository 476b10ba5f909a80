from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock._native.bell import Bell
from penstock._native.builder import BatchBuilder, EncodedHeaders
from penstock._native.lane import TopicLanes
from penstock._native.records import Record, RecordMetadata

class Appender:
    name: str
    _broker: Any
    def __init__(self, broker: Any, catalog_bell: Bell, name: str) -> None: ...
    def append(
        self,
        value: bytes | bytearray | memoryview | None,
        key: bytes | bytearray | memoryview | None = None,
        headers: Iterable[tuple[str, bytes | None]] | EncodedHeaders | None = None,
        timestamp_ms: int | None = None,
        partition: int | None = None,
        expected_offset: int | None = None,
    ) -> RecordMetadata: ...
    def append_batch(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        headers: Sequence[Iterable[tuple[str, bytes | None]] | EncodedHeaders | None] | None = None,
        timestamp_ms: int | None = None,
        partition: int = 0,
        expected_offset: int | None = None,
    ) -> RecordMetadata: ...
    def append_built(
        self, builder: BatchBuilder, partition: int = 0, expected_offset: int | None = None
    ) -> RecordMetadata: ...
    def read(self, offsets: Sequence[int] | NDArray[np.int64], partition: int = 0) -> list[Record]: ...
    def _load_lanes(self) -> TopicLanes: ...
