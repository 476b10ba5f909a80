from collections import deque
from collections.abc import Iterable
from threading import Lock
from typing import Any

from penstock._native.partition import Partition
from penstock._native.records import Source
from penstock.storage.partition_log import PartitionLog

class Waiting:
    @property
    def size_bytes(self) -> int: ...
    @property
    def count(self) -> int: ...

class Lane:
    source: Source
    log: PartitionLog
    waiting: deque[Waiting]
    lock: Lock
    began: float
    enlisted: bool
    sequence: int
    def __init__(self, source: Source, log: Partition) -> None: ...
    @property
    def open_records(self) -> int: ...
    @property
    def open_bytes(self) -> int: ...
    def renew(self) -> None: ...

class TopicLanes:
    name: str
    config: Any
    lanes: list[Lane]
    partitions: int
    max_message_bytes: int
    codec: int
    log_append_time: bool
    def __init__(self, name: str, config: Any, logs: Iterable[Partition], codec: int, seed: int) -> None: ...
