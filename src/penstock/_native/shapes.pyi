from collections.abc import Sequence
from typing import Any

STR: int
INT: int
FLOAT: int
BOOL: int
NONE: int
BYTES: int
DATETIME: int
DATE: int
UUID: int

class Shape:
    def __init__(
        self,
        types: int,
        items: Shape | None = None,
        values: Shape | None = None,
        struct: type | None = None,
        fields: Sequence[tuple[str, Shape]] = (),
    ) -> None: ...

def all_fit(values: list[Any], shapes: dict[type, Shape | None]) -> bool: ...
