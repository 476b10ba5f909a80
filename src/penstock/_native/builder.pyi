from collections.abc import Callable, Iterable
from typing import Any

from typing_extensions import Buffer

class BatchBuilder:
    size_bytes: int
    count: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    def __init__(self, capacity_bytes: int = 16384) -> None: ...
    def append(
        self,
        value: Buffer | None,
        key: Buffer | None,
        headers: Iterable[tuple[str, bytes | None]] | None,
        timestamp_ms: int,
    ) -> None: ...
    def append_list(
        self, values: list[bytes], start: int, timestamp_ms: int, limit_bytes: int, stop: int = ...
    ) -> int: ...
    def append_fixed(
        self, buffer: Buffer, width: int, start: int, stop: int, timestamp_ms: int, limit_bytes: int
    ) -> int: ...
    def append_ranges(
        self, buffer: Buffer, offsets: Any, start: int, stop: int, timestamp_ms: int, limit_bytes: int
    ) -> int: ...
    def seal(
        self,
        codec: int = 0,
        log_append_time: bool = False,
        producer_id: int = -1,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        attributes: int = 0,
    ) -> None: ...
    def set_log_append_time(self, timestamp_ms: int) -> None: ...
    def reset(self) -> None: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def compressed(codec: int, data: Any) -> bytes: ...
def set_compressor(compress: Callable[[int, Any], bytes]) -> None: ...
def encode_headers(headers: object) -> tuple[bytes, int]: ...

class Values:
    """Up to 256 values that are encoded in one go; used inside of the native modules."""
