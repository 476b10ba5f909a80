from typing import Any

import numpy as np
import numpy.typing as npt

from penstock._native.region import Region

class ColumnPart:
    buffer: Any
    count: int
    base_offset: int
    last_offset: int
    value_starts: npt.NDArray[np.int64]
    value_lengths: npt.NDArray[np.int64]
    @property
    def offsets(self) -> npt.NDArray[np.int64]: ...
    @property
    def timestamps(self) -> npt.NDArray[np.int64]: ...
    @property
    def key_starts(self) -> npt.NDArray[np.int64]: ...
    @property
    def key_lengths(self) -> npt.NDArray[np.int64]: ...

def column_parts(region: Region, from_offset: int, limit_bytes: int, aborted: object = None) -> list[ColumnPart]: ...
def slices(buffer: Any, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> list[bytes | None]: ...
def gather(
    buffer: Any, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]: ...
