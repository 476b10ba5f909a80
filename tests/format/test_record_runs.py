"""Neighbours of one shape are read by what is expected of them: the same as when each is parsed field by field."""

from __future__ import annotations

import crc32c
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from penstock._native.builder import BatchBuilder
from penstock._native.columns import column_parts, slices
from penstock._native.region import Region
from penstock.errors import CorruptionError

HEADER = 61


class Contradiction(Exception):
    """The record does not agree with its size."""


class HeadersAppear(Exception):
    """A shorter value makes headers of its rest, which columns do not look at."""


def varint(data: bytes, at: int, end: int, most: int) -> tuple[int, int]:
    number = shift = 0
    while at < end and most:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift, most = at + 1, shift + 7, most - 1
        if byte < 0x80:
            return number >> 1 ^ -(number & 1), at
    raise Contradiction


def field(data: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = varint(data, at, end, 5)
    if not -1 <= length <= end - at:
        raise Contradiction
    return (None, at) if length < 0 else (data[at : at + length], at + length)


def parsed(data: bytes, most_delta: int) -> list[tuple[int, int, bytes | None, bytes | None]]:
    """(offset delta, timestamp delta, key, value) of each record without headers."""
    found, at = [], HEADER
    for _ in range(int.from_bytes(data[57:61], "big")):
        size, at = varint(data, at, len(data), 5)
        if not 1 <= size <= len(data) - at:
            raise Contradiction
        end = at + size
        stamp, at = varint(data, at + 1, end, 10)
        delta, at = varint(data, at, end, 5)
        key, at = field(data, at, end)
        value, at = field(data, at, end)
        headers, at = varint(data, at, end, 5)
        if 0 < headers <= end - at:
            raise HeadersAppear
        if headers != 0 or at != end or not 0 <= delta <= most_delta:
            raise Contradiction
        found.append((delta, stamp, key, value))
    if at != len(data):
        raise Contradiction
    return found


def columns(data: bytes) -> list[tuple[int, int, bytes | None, bytes | None]]:
    out = []
    for part in column_parts(Region.from_buffer(data, "a.log", 0), 0, 1 << 20):
        keys = slices(part.buffer, part.key_starts, part.key_lengths)
        values = slices(part.buffer, part.value_starts, part.value_lengths)
        out += list(zip(part.offsets.tolist(), part.timestamps.tolist(), keys, values, strict=True))
    return out


def told(read, *arguments):
    """What was read, or None where it was refused."""
    try:
        return read(*arguments)
    except (CorruptionError, Contradiction):
        return None


def with_crc(data: bytearray) -> bytes:
    data[17:21] = crc32c.crc32c(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


def sealed(records: list[tuple[bytes | None, bytes | None, int]]) -> bytearray:
    builder = BatchBuilder()
    for value, key, stamp in records:
        builder.append(value, key, None, stamp)
    builder.seal()
    return bytearray(builder)


RUN = st.tuples(
    st.integers(1, 150), st.none() | st.integers(0, 9), st.none() | st.integers(0, 200), st.integers(0, 9000)
)


@settings(deadline=None, max_examples=60)
@examples(st.lists(RUN, min_size=1, max_size=4))
def test_runs_of_any_shape(parse, runs):
    records, number = [], 0
    for count, key_size, value_size, stamp in runs:
        for _ in range(count):
            number += 1
            key = None if key_size is None else (b"%09d" % number)[-key_size or 9 :]
            value = None if value_size is None else (b"%09d" % number * 30)[:value_size]
            records.append((value, key, 1000 + stamp))
    data = bytes(sealed(records))
    expected = parsed(data, len(records) - 1)
    assert [(value, key) for _, _, key, value in expected] == [(value, key) for value, key, _ in records]
    base = records[0][2]
    assert columns(data) == [(delta, base + stamp, key, value) for delta, stamp, key, value in expected]
    assert [(r.offset, r.timestamp_ms - base, r.key, r.value) for r in parse(data)] == expected


@pytest.mark.parametrize("key", [None, b"key-1"])
@pytest.mark.parametrize("first", [0, 60])
def test_every_bit_of_a_run(parse, key, first):
    whole = sealed([(b"%020d" % number, key, 1000) for number in range(first + 6)])
    size = (len(whole) - HEADER) // (first + 6) - 1  # the flips reach well into the last six
    read = refused = 0
    for at in range(len(whole) - 6 * size, len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[at] ^= 1 << bit
            stored = with_crc(data)
            try:
                expected = told(parsed, stored, first + 5)
            except HeadersAppear:
                continue
            fields = None if expected is None else [(delta, key, value) for delta, _, key, value in expected]
            assert told(lambda stored=stored: [(d, k, v) for d, _, k, v in columns(stored)]) == fields
            assert told(lambda stored=stored: [(r.offset, r.key, r.value) for r in parse(stored)]) == fields
            read, refused = read + (fields is not None), refused + (fields is None)
    assert read > 500 and refused > 100


def test_many_values_of_one_length_are_written_as_one_by_one():
    for count, width, stamp in [(300, 100, 0), (70, 5, 90), (200, 0, 0), (130, 9000, 70_000), (200, 3, 1 << 40)]:
        values = [b"%09d" % number * 1000 for number in range(count)]
        values = [value[:width] for value in values]
        one, many = BatchBuilder(), BatchBuilder()
        for builder in (one, many):
            builder.append(b"first", None, None, 1000)
        for value in values:
            one.append(value, None, None, 1000 + stamp)
        assert many.append_list(values, 0, 1000 + stamp, 1 << 30) == count
        one.seal()
        many.seal()
        assert bytes(one) == bytes(many)
