from typing import Any

from penstock._native.builder import BatchBuilder

class Kind:
    @property
    def head(self) -> bytes: ...
    @property
    def headers(self) -> bytes: ...
    def __init__(self, head: bytes, headers: bytes) -> None: ...

class Template:
    def __init__(self, middle: bytes, before_data: bytes, tail: bytes, own_correlation: bool) -> None: ...

def append_events(
    builder: BatchBuilder,
    key: bytes,
    events: list[Any],
    data: bytes | list[bytes],
    kinds: dict[Any, Kind],
    template: Template,
    stamp: int,
    seed: int,
    version: int,
    timestamp_ms: int,
    tags: list[tuple[bytes, int]] | None,
    common_tags: bytes,
    common_tag_count: int,
) -> bool: ...
def append_envelope(
    builder: BatchBuilder,
    key: bytes,
    value: bytes,
    version: int,
    headers: bytes,
    header_count: int,
    timestamp_ms: int,
) -> None: ...
