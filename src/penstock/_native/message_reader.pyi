from penstock._native.partition import Partition
from penstock._native.records import RecordCursor

class MessageReader(RecordCursor):
    def __init__(self, log: Partition, decompressed_limit_bytes: int) -> None: ...
