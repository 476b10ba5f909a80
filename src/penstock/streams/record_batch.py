"""Records as columns: numpy arrays over the stored bytes, for programs that work on many at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from penstock._native.columns import ColumnPart, column_parts, gather, slices
from penstock._native.region import Region
from penstock.errors import PenstockError
from penstock.storage.transaction_index import AbortedTransactions

DECOMPRESSED_LIMIT_BYTES = 64 << 20
Int64s = npt.NDArray[np.int64]


class RecordBatch:
    """Consecutive records of one partition.

    `offsets`, `timestamps` (ms), `value_starts`, `value_lengths`, `key_starts`, `key_lengths`: int64 arrays of `count`;
    a length of -1 means null. Value i is `value_buffer[value_starts[i]:value_starts[i] + value_lengths[i]]`, where
    `value_buffer` is a read-only uint8 array over the mapped file itself (or over the decompressed batch). It stays
    valid for as long as something refers to it.
    """

    __slots__ = ("_part", "partition", "topic")

    def __init__(self, topic: str, partition: int, part: ColumnPart) -> None:
        self.topic = topic
        self.partition = partition
        self._part = part

    @property
    def base_offset(self) -> int:
        """Offset of the first record."""
        return self._part.base_offset

    @property
    def last_offset(self) -> int:
        """Offset of the last record."""
        return self._part.last_offset

    @property
    def count(self) -> int:
        """Number of records."""
        return self._part.count

    def __len__(self) -> int:
        return self._part.count

    @property
    def offsets(self) -> Int64s:
        """Offsets, int64."""
        return self._part.offsets

    @property
    def timestamps(self) -> Int64s:
        """Timestamps in milliseconds since the epoch, int64."""
        return self._part.timestamps

    @property
    def value_starts(self) -> Int64s:
        """Where each value begins in `value_buffer`, int64."""
        return self._part.value_starts

    @property
    def value_lengths(self) -> Int64s:
        """Bytes of each value, -1 for null, int64."""
        return self._part.value_lengths

    @property
    def key_starts(self) -> Int64s:
        """Where each key begins in `value_buffer`, int64."""
        return self._part.key_starts

    @property
    def key_lengths(self) -> Int64s:
        """Bytes of each key, -1 for null, int64."""
        return self._part.key_lengths

    @property
    def value_buffer(self) -> npt.NDArray[np.uint8]:
        """The bytes that hold keys and values: read-only uint8, zero-copy."""
        return np.frombuffer(self._part.buffer, np.uint8)

    def values(self) -> list[bytes | None]:
        """Every value, as bytes or None."""
        return slices(self._part.buffer, self._part.value_starts, self._part.value_lengths)

    def keys(self) -> list[bytes | None]:
        """Every key, as bytes or None."""
        return slices(self._part.buffer, self._part.key_starts, self._part.key_lengths)

    def to_arrow(self) -> Any:
        """A `pyarrow.RecordBatch` with columns offset, timestamp (ms, UTC), key and value (large_binary).

        Raises `PenstockError` (an ImportError as well) when pyarrow is not installed.
        """
        try:
            import pyarrow as pa
        except ImportError as error:
            raise ArrowUnavailableError("to_arrow() needs pyarrow: pip install 'penstock[arrow]'") from error
        part = self._part
        return pa.RecordBatch.from_arrays(
            [
                pa.array(part.offsets),
                pa.array(part.timestamps).cast(pa.timestamp("ms", tz="UTC")),
                _binary(pa, part.buffer, part.key_starts, part.key_lengths),
                _binary(pa, part.buffer, part.value_starts, part.value_lengths),
            ],
            names=["offset", "timestamp", "key", "value"],
        )

    def __repr__(self) -> str:
        return f"<RecordBatch {self.topic}-{self.partition} offsets {self.base_offset} to {self.last_offset}>"


class ArrowUnavailableError(PenstockError, ImportError):
    """pyarrow is not installed."""


def record_batches(
    region: Region,
    topic: str,
    partition: int,
    from_offset: int,
    decompressed_limit_bytes: int = DECOMPRESSED_LIMIT_BYTES,
    aborted: AbortedTransactions | None = None,
) -> list[RecordBatch]:
    """The records of a region at or after `from_offset`, without those of `aborted` transactions.

    Consecutive uncompressed batches are one `RecordBatch`, each compressed one is its own.
    """
    parts = column_parts(region, from_offset, decompressed_limit_bytes, aborted)
    return [RecordBatch(topic, partition, part) for part in parts]


def _binary(pa: Any, buffer: Any, starts: Int64s, lengths: Int64s) -> Any:
    packed, bounds = gather(buffer, starts, lengths)
    nulls = lengths < 0
    validity = None
    if nulls.any():
        validity = pa.py_buffer(np.packbits(~nulls, bitorder="little").tobytes())
    buffers = [validity, pa.py_buffer(bounds), pa.py_buffer(packed)]
    return pa.Array.from_buffers(pa.large_binary(), len(starts), buffers, int(nulls.sum()))
