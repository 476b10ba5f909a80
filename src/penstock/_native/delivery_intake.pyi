from penstock._native.delivery_files import DeliveryFiles
from penstock._native.partition import Partition

VISIBLE_AT_HEADER: str
EXPIRES_AT_HEADER: str
FLAG_DELAYS: int
FLAG_EXPIRES: int
FLAG_PRECEDENCE: int

class DeliveryIntake(DeliveryFiles):
    def __init__(
        self,
        directory: str,
        log: Partition,
        incarnation: int,
        boot_id: str,
        ordered: bool,
        decompressed_limit_bytes: int,
    ) -> None: ...
    @property
    def flags(self) -> int: ...
    def set_flag(self, flag: int) -> None: ...
    def skip_to(self, offset: int) -> None: ...
