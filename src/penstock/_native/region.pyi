from typing import Any

from typing_extensions import Buffer

class Region:
    path: str
    position: int
    owner: Any
    @staticmethod
    def from_buffer(buffer: Buffer, path: str = "", position: int = 0) -> Region: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
