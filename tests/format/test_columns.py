"""Columns hold what the cursor reads, without copying it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from penstock._native.columns import slices
from penstock._native.region import Region
from penstock.streams.record_batch import record_batches


@pytest.fixture
def data(given, seal):
    return (
        seal([given(b"a", b"k"), given(None), given(b"", b"")], 0, 5)
        + seal([given(b"bb", None, [("h", b"v")], 2_000)], 0, 8)
        + seal([given(b"zip%d" % i) for i in range(3)], 3, 9)
        + seal([given(b"last")], 0, 20)
    )


def read(data, from_offset=0):
    return record_batches(Region.from_buffer(data), "orders", 3, from_offset)


def test_they_agree_with_the_cursor(data, parse):
    for from_offset in range(22):
        batches = read(data, from_offset)
        seen = [
            fields
            for b in batches
            for fields in zip(b.offsets.tolist(), b.timestamps.tolist(), b.keys(), b.values(), strict=True)
        ]
        assert seen == [(r.offset, r.timestamp_ms, r.key, r.value) for r in parse(data, from_offset)]


def test_plain_batches_are_one_and_packed_ones_their_own(data):
    first, packed, last = read(data)
    assert [b.count for b in (first, packed, last)] == [4, 3, 1]
    assert (first.base_offset, first.last_offset, packed.base_offset, last.base_offset) == (5, 8, 9, 20)
    assert (first.topic, first.partition, len(first)) == ("orders", 3, 4)
    assert first.value_lengths.tolist() == [1, -1, 0, 2]
    assert first.key_lengths.tolist() == [1, -1, 0, -1]


def test_values_lie_in_the_buffer(data):
    for batch in read(data):
        buffer = batch.value_buffer
        assert buffer.dtype == np.uint8 and not buffer.flags.writeable
        cut = [
            None if length < 0 else buffer[start : start + length].tobytes()
            for start, length in zip(batch.value_starts, batch.value_lengths, strict=True)
        ]
        assert cut == batch.values()


def test_the_plain_buffer_is_the_region_itself(data):
    region = Region.from_buffer(data)
    batch = record_batches(region, "orders", 3, 0)[0]
    assert (
        batch.value_buffer.__array_interface__["data"][0]
        == np.frombuffer(region, np.uint8).__array_interface__["data"][0]
    )


def test_the_buffer_outlives_its_region(given, seal):
    batch = record_batches(Region.from_buffer(seal([given(b"kept")])), "orders", 3, 0)[0]
    assert batch.values() == [b"kept"]


def test_columns_cannot_be_written(data):
    batch = read(data)[0]
    for column in (batch.offsets, batch.timestamps, batch.value_starts, batch.value_lengths, batch.key_starts):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1 << 40


def test_log_append_time(given, seal):
    (batch,) = read(seal([given(b"a", timestamp_ms=1), given(b"b", timestamp_ms=9)], log_append_time=True))
    assert batch.timestamps.tolist() == [9, 9]


def test_arrow(data):
    table = pa.Table.from_batches([b.to_arrow() for b in read(data)])
    table.validate(full=True)
    assert table.column_names == ["offset", "timestamp", "key", "value"]
    assert table["offset"].to_pylist() == [5, 6, 7, 8, 9, 10, 11, 20]
    assert table["value"].to_pylist() == [b"a", None, b"", b"bb", b"zip0", b"zip1", b"zip2", b"last"]
    assert table["key"].to_pylist() == [b"k", None, b"", None, None, None, None, None]
    assert table["timestamp"].type == pa.timestamp("ms", tz="UTC")
    assert table["timestamp"].cast(pa.int64()).to_pylist()[:4] == [1000, 1000, 1000, 2000]


def test_slices_refuses_what_is_outside():
    for start, length in ((0, 5), (5, 1), (-1, 1), (1 << 62, 1 << 62)):
        with pytest.raises(IndexError):
            slices(b"abcd", np.array([start]), np.array([length]))
