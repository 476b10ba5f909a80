"""What is written is what is read, for every field, codec and path into the builder."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from penstock._native.builder import BatchBuilder
from penstock.errors import InvalidArgumentError

CODECS = range(5)
HEADERS = st.lists(
    st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.none() | st.binary(max_size=9))
)
RECORDS = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=300),
        st.none() | st.binary(max_size=70),
        st.none() | HEADERS,
        st.integers(-(2**61), 2**61),
    ),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=150)
@examples(records=RECORDS, codec=st.sampled_from(CODECS), base_offset=st.integers(0, 2**62))
def test_every_field(seal, parse, records, codec, base_offset):
    read = parse(seal(records, codec, base_offset))
    assert [(r.value, r.key, r.headers, r.timestamp_ms) for r in read] == [
        (value, key, headers or [], timestamp_ms) for value, key, headers, timestamp_ms in records
    ]
    assert [r.offset for r in read] == list(range(base_offset, base_offset + len(records)))
    assert {(r.topic, r.partition) for r in read} == {("orders", 3)}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [0, 1, 63, 64, 8191, 8192, 1 << 20])
def test_sizes_around_the_varint_steps(given, seal, parse, codec, size):
    value = bytes(range(256)) * (size // 256 + 1)
    value = value[:size]
    (record,) = parse(seal([given(value, value[:9000])], codec))
    assert record.value == value and record.key == value[:9000]


def test_several_batches_from_an_offset(given, seal, parse):
    data = seal([given(b"a"), given(b"b")]) + seal([given(b"c")], 3, 2) + seal([given(b"d"), given(b"e")], 0, 10)
    assert [(r.offset, r.value) for r in parse(data, 1)] == [(1, b"b"), (2, b"c"), (10, b"d"), (11, b"e")]
    assert [r.offset for r in parse(data, 3)] == [10, 11]
    assert parse(data, 12) == []


def test_log_append_time_replaces_every_timestamp(given, parse):
    builder = BatchBuilder()
    builder.append(b"a", None, None, 5)
    builder.append(b"b", None, None, 900)
    builder.seal(log_append_time=True)
    assert [r.timestamp_ms for r in parse(bytes(builder))] == [900, 900]
    builder.set_log_append_time(7_000)
    assert [r.timestamp_ms for r in parse(bytes(builder))] == [7_000, 7_000]


@pytest.mark.parametrize("codec", [0, 3])
def test_control_batches_are_passed_over(given, seal, parse, codec):
    import crc32c

    control = bytearray(seal([given(b"marker")], codec, 1))
    control[22] |= 0x20
    control[17:21] = crc32c.crc32c(control[21:]).to_bytes(4, "big")
    data = seal([given(b"a")]) + bytes(control) + seal([given(b"b")], 0, 2)
    assert [r.value for r in parse(data)] == [b"a", b"b"]


def test_list_fixed_and_ranges_write_the_same_batch():
    values = [bytes([i]) * 8 for i in range(200)]
    whole = b"".join(values)
    sealed = []
    for way in ("one", "list", "fixed", "ranges"):
        builder = BatchBuilder(256)
        if way == "one":
            for value in values:
                builder.append(value, None, None, 1)
        elif way == "list":
            assert builder.append_list(values, 0, 1, 1 << 20) == 200
        elif way == "fixed":
            assert builder.append_fixed(np.frombuffer(whole, np.uint8).reshape(200, 8), 8, 0, 200, 1, 1 << 20) == 200
        else:
            assert builder.append_ranges(whole, np.arange(201, dtype=np.int64) * 8, 0, 200, 1, 1 << 20) == 200
        builder.seal()
        sealed.append(bytes(builder))
    assert len(set(sealed)) == 1


def test_append_list_stops_at_the_limit_and_goes_on(parse):
    values = [b"%06d" % i for i in range(5000)]
    builder, start, read = BatchBuilder(), 0, []
    while start < len(values):
        builder.reset()
        after = builder.append_list(values, start, 1, 1000)
        assert after > start and builder.size_bytes < 1100
        builder.seal()
        read += [r.value for r in parse(bytes(builder))]
        start = after
    assert read == values


def test_reset_makes_an_equal_batch(given, seal):
    builder = BatchBuilder()
    builder.append(b"old" * 9000, b"k", [("h", b"v")], 77)
    builder.seal(3)
    builder.reset()
    assert (builder.count, len(builder)) == (0, 0)
    builder.append(b"new", None, None, 1_000)
    builder.seal()
    assert bytes(builder) == seal([given(b"new")])


def test_growing_forgets_the_sealed_bytes():
    builder = BatchBuilder(256)
    builder.append(b"a", None, None, 1)
    builder.seal()
    builder.append(bytes(100_000), None, None, 1)
    with pytest.raises(BufferError):
        bytes(builder)
    with pytest.raises(InvalidArgumentError, match="not sealed"):
        builder.set_log_append_time(1)
