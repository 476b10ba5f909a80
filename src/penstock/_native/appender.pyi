from collections.abc import Iterable
from typing import Any

from penstock._native.builder import EncodedHeaders
from penstock._native.lane import TopicLanes
from penstock._native.partition import Bell
from penstock._native.records import RecordMetadata

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
    ) -> RecordMetadata: ...
    def _load_lanes(self) -> TopicLanes: ...
