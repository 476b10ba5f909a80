from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock._native.partition import Partition
from penstock._native.records import Record, Source

class OpenBatch:
    """A checked batch, and how far its records are known."""

class Lookup:
    log: Partition
    def __init__(self, source: Source, log: Partition, decompressed_limit_bytes: int) -> None: ...
    def read(self, offsets: Sequence[int] | NDArray[np.int64]) -> list[Record]: ...
