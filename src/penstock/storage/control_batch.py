"""Control batches: the markers that end a transaction in a partition (Kafka's EndTransactionMarker).

Invariant: a marker is one record in a batch of its own, with the control and the transactional bit set; consumers pass
over it. Thread and process safety: any; what is made belongs to the caller. Crash policy: nothing is written here.
"""

from __future__ import annotations

import struct

from penstock._native.builder import BatchBuilder

_TRANSACTIONAL, _CONTROL = 0x10, 0x20
_KEY, _VALUE = struct.Struct(">hh"), struct.Struct(">hi")
_ABORT, _COMMIT = 0, 1


def end_marker(producer_id: int, epoch: int, committed: bool, timestamp_ms: int) -> BatchBuilder:
    """A sealed batch with one record that says how the producer's transaction ended."""
    builder = BatchBuilder(256)
    builder.append(_VALUE.pack(0, 0), _KEY.pack(0, _COMMIT if committed else _ABORT), None, timestamp_ms)
    builder.seal(0, False, producer_id, epoch, -1, _TRANSACTIONAL | _CONTROL)
    return builder
