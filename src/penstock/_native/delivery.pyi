from typing import Any

from penstock._native.delivery_states import DeliveryStates
from penstock._native.message import Message
from penstock._native.partition import Partition

class Delivery(DeliveryStates):
    def __init__(
        self,
        directory: str,
        log: Partition,
        incarnation: int,
        boot_id: str,
        ordered: bool,
        decompressed_limit_bytes: int,
    ) -> None: ...
    def claim(
        self, queue: Any, out: list[Message], now_ms: int, until_ms: int, wanted: int, failures_max: int
    ) -> list[tuple[Message, int, int | None]] | None: ...
    def read(self, queue: Any, offset: int) -> Message | None: ...
    def acquire(self, queue: Any, offset: int, until_ms: int) -> Message | None: ...
    def received(self, queue: Any, offset: int, receipt: int) -> Message | None: ...
