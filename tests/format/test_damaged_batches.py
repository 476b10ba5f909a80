"""Whatever happens to stored bytes: a `CorruptionError` that says where, or the right records, never a crash."""

from __future__ import annotations

import random

import crc32c
import pytest

from penstock._native.records import RecordCursor
from penstock._native.region import Region
from penstock.errors import CorruptionError, PenstockError
from penstock.streams.record_batch import record_batches

NOT_COVERED = {*range(8), *range(12, 16)}  # base offset and leader epoch: the CRC leaves them out on purpose


@pytest.fixture(params=[0, 3], ids=["plain", "lz4"])
def batch(request, given, seal):
    return seal([given(b"value-%d" % i * 3, b"k", [("h", b"v")], 1_000 + i) for i in range(4)], request.param, 256)


def columns(data):
    return [value for part in record_batches(Region.from_buffer(data), "orders", 3, 0) for value in part.values()]


def with_crc(data):
    data = bytearray(data)
    data[17:21] = crc32c.crc32c(data[21:]).to_bytes(4, "big")
    return bytes(data)


def test_every_bit_flipped(batch, parse):
    right = [r.value for r in parse(batch)]
    for index in range(len(batch)):
        for bit in range(8):
            flipped = bytearray(batch)
            flipped[index] ^= 1 << bit
            for read in (lambda data: [r.value for r in parse(data)], columns):
                if index not in NOT_COVERED:
                    with pytest.raises(CorruptionError):
                        read(bytes(flipped))
                    continue
                try:
                    assert read(bytes(flipped)) == right, index
                except CorruptionError:
                    assert index == 0, "only a negative base offset can be told"


def test_cut_at_every_byte(batch, parse):
    whole = parse(batch)
    for size in range(1, len(batch)):
        with pytest.raises(CorruptionError):
            parse(batch[:size])
        with pytest.raises(CorruptionError):
            columns(batch[:size])
    assert parse(b"") == columns(b"") == []
    assert whole == parse(batch)


def test_the_error_names_the_place(given, seal):
    first, second = seal([given(b"good")]), bytearray(seal([given(b"bad!")], 0, 1))
    second[-2] ^= 1
    cursor = RecordCursor("orders", 3)
    cursor.feed(Region.from_buffer(first + bytes(second), "00.log", 1000), 0)
    assert cursor.next_record().value == b"good"
    for _ in range(2):  # the bad place is not passed over by asking again
        with pytest.raises(CorruptionError) as caught:
            cursor.next_record()
        error = caught.value
        assert (error.path, error.position) == ("00.log", 1000 + len(first))
        assert error.expected != error.got
    assert cursor.next_offset == 1


def test_a_record_larger_than_its_batch(given, seal, parse):
    batch = bytearray(seal([given(b"x" * 40), given(b"y" * 40)]))
    batch[61] = 0x7E  # the first record claims 63 bytes
    with pytest.raises(CorruptionError):
        parse(with_crc(batch))
    batch[61:63] = b"\xff\x7f"
    with pytest.raises(CorruptionError):
        columns(with_crc(batch))


def test_a_bad_record_is_refused_again(given, seal):
    batch = bytearray(seal([given(b"a"), given(b"b"), given(b"c")]))
    batch[-8] = 0x10  # size of the last record
    cursor = RecordCursor("orders", 3)
    cursor.feed(Region.from_buffer(with_crc(batch)), 0)
    assert [cursor.next_record().value, cursor.next_record().value] == [b"a", b"b"]
    for _ in range(2):
        with pytest.raises(CorruptionError, match="record 2"):
            cursor.next_record()
    assert cursor.next_offset == 2


@pytest.mark.parametrize("count", [0x7FFFFFFF, 0x80000000, 5, 3])
def test_a_count_that_lies(batch, parse, count):
    lying = bytearray(batch)
    lying[57:61] = count.to_bytes(4, "big")
    for read in (parse, columns):
        with pytest.raises(CorruptionError):
            read(with_crc(lying))


@pytest.mark.parametrize("length", [0, 48, 49, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_length_that_lies(batch, parse, length):
    lying = bytearray(batch)
    lying[8:12] = length.to_bytes(4, "big")
    for read in (parse, columns):
        with pytest.raises(CorruptionError):
            read(bytes(lying))


@pytest.mark.parametrize("magic", [0, 1, 3, 255])
def test_another_magic(batch, parse, magic):
    with pytest.raises(CorruptionError, match="version"):
        parse(batch[:16] + bytes([magic]) + batch[17:])


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_an_unknown_codec(given, seal, parse, codec):
    batch = bytearray(seal([given(b"a")]))
    batch[22] |= codec
    with pytest.raises(CorruptionError, match="unknown codec"):
        parse(with_crc(batch))


def test_offsets_that_go_backwards(given, seal, parse):
    data = seal([given(b"a"), given(b"b")], 0, 10) + seal([given(b"c")], 0, 11)
    with pytest.raises(CorruptionError, match="out of order"):
        parse(data)
    with pytest.raises(CorruptionError, match="out of order"):
        parse(seal([given(b"a"), given(b"b")], 0, 2**63 - 2))


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_behind_a_valid_crc(batch, parse, seed):
    chance = random.Random(seed)
    for _ in range(400):
        damaged = bytearray(batch)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(21, len(damaged))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        for read in (parse, columns):
            try:
                read(with_crc(damaged))
            except PenstockError:
                continue


def test_random_bytes(parse):
    chance = random.Random(7)
    for _ in range(300):
        noise = chance.randbytes(chance.randint(1, 300))
        for read in (parse, columns):
            with pytest.raises(CorruptionError):
                read(noise)
