from collections.abc import Callable, Iterable
from typing import Any

from penstock._native.bell import Bell
from penstock._native.lane import TopicLanes
from penstock._native.records import RecordMetadata
from penstock._native.words import WordTable
from penstock.errors import PenstockError

class Accumulator:
    _broker: Any
    _failure: Exception | None
    _linger_awake: bool
    _idle: bool
    _epoch: int
    def __init__(
        self, broker: Any, catalog_bell: Bell, partitioner: Any, batch_size: int, buffer_memory: int, eager: bool
    ) -> None: ...
    def send(
        self,
        topic: str,
        value: bytes | bytearray | memoryview | None,
        key: bytes | bytearray | memoryview | None = None,
        headers: Iterable[tuple[str, bytes | None]] | None = None,
        timestamp_ms: int | None = None,
        partition: int | None = None,
        on_delivery: Callable[[PenstockError | None, RecordMetadata | None], object] | None = None,
    ) -> None: ...
    def send_many(
        self,
        topic: str,
        values: Iterable[bytes],
        keys: Iterable[bytes | None] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> int: ...
    def flush(self) -> None: ...
    def purge(self) -> int: ...
    @property
    def producer_id(self) -> int: ...
    @property
    def buffered_records(self) -> int: ...
    @property
    def buffered_bytes(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def _send_items(
        self,
        topic: str,
        buffer: Any,
        width: int,
        bounds: Any,
        total: int,
        partition: int | None,
        timestamp_ms: int | None,
    ) -> int: ...
    def _store_topic(self, lanes: TopicLanes, older_than: float | None = None) -> Exception | None: ...
    def _identify(
        self, producer_id: int, epoch: int, fences: WordTable | None, fence: int, transactional: bool
    ) -> None: ...
    def _loaded(self) -> list[TopicLanes]: ...
    def _send_named(self, topic: str, values: list[Any], names: list[str], partition: int) -> int: ...
    def _is_system_clock(self) -> bool: ...
    def _forget(self) -> None: ...
    def _shut_down(self) -> None: ...
