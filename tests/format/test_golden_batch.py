"""The bytes of one batch, field by field: a change of them is a change of the format on disk."""

import crc32c


def test_bytes_of_a_batch(given, seal, parse):
    base = 1_700_000_000_000
    records = [given(b"hello", b"k", [("h", b"v1")], base), given(None, None, [("h", None)], base + 5)]
    batch = seal(records, producer_id=7, producer_epoch=1, base_sequence=9)
    tail = bytes.fromhex(
        "0000"  # attributes
        "00000001"  # last offset delta
        "0000018bcfe56800"  # base timestamp
        "0000018bcfe56805"  # max timestamp
        "0000000000000007"  # producer id
        "0001"  # producer epoch
        "00000009"  # base sequence
        "00000002"  # count
        "22"  # record of 17 bytes
        "000000"  # attributes, timestamp delta, offset delta
        "026b"  # key
        "0a68656c6c6f"  # value
        "02"  # one header
        "0268"  # its name
        "047631"  # its value
        "12"  # record of 9 bytes
        "000a02"  # attributes, timestamp delta 5, offset delta 1
        "0101"  # null key, null value
        "02026801"  # one header, h, null
    )
    head = bytes.fromhex("0000000000000000") + (9 + len(tail)).to_bytes(4, "big") + bytes.fromhex("0000000002")
    assert batch == head + crc32c.crc32c(tail).to_bytes(4, "big") + tail
    assert [(r.key, r.value, r.headers, r.timestamp_ms) for r in parse(batch)] == [
        (b"k", b"hello", [("h", b"v1")], base),
        (None, None, [("h", None)], base + 5),
    ]
