"""A small payload that claims, or holds, gigabytes is refused before they are made."""

from __future__ import annotations

import builtins
import importlib
import tracemalloc
import zlib

import cramjam
import lz4.frame
import pytest
import zstandard

from penstock.errors import CodecUnavailableError, CorruptionError, InvalidConfigError
from penstock.storage import compression
from penstock.storage.compression import GZIP, LZ4, SNAPPY, ZSTD, compress, decompress

LIMIT = 1 << 20
BIG = bytes(64 << 20)
XERIAL = b"\x82SNAPPY\x00" + (1).to_bytes(4, "big") * 2


def lz4_frame_with_claim(data: bytes, claim: int) -> bytes:
    frame = bytearray(lz4.frame.compress(data, block_linked=False))
    frame[6:14] = claim.to_bytes(8, "little")
    for checksum in range(256):  # one of them is the header's
        frame[14] = checksum
        try:
            lz4.frame.get_frame_info(bytes(frame))
        except RuntimeError:
            continue
        return bytes(frame)
    raise AssertionError("no checksum fits")


def gzip_of(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=31)
    return deflate.compress(data) + deflate.flush()


def xerial(block: bytes) -> bytes:
    return XERIAL + len(block).to_bytes(4, "big") + block


BOMBS = {
    "lz4 claims": (LZ4, lambda: lz4_frame_with_claim(b"small", 1 << 40)),
    "lz4 holds": (LZ4, lambda: lz4.frame.compress(BIG, store_size=False)),
    "lz4 holds, claims little": (LZ4, lambda: lz4_frame_with_claim(BIG, 10)),
    "gzip holds": (GZIP, lambda: gzip_of(BIG)),
    "zstd claims": (ZSTD, lambda: bytes.fromhex("28b52ffde0") + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00"),
    "zstd holds": (ZSTD, lambda: zstandard.ZstdCompressor(write_content_size=False).compress(BIG)),
    "snappy claims": (SNAPPY, lambda: xerial(b"\xff\xff\xff\xff\x0f" + b"\x00a")),
    "raw snappy claims": (SNAPPY, lambda: b"\xff\xff\xff\xff\x0f" + b"\x00a"),
    "snappy holds": (SNAPPY, lambda: compress(SNAPPY, BIG[: 8 << 20])),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(bomb):
    codec, make = BOMBS[bomb]
    payload = make()
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError):
            decompress(codec, payload, LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * LIMIT


def test_a_bomb_in_a_batch(given, seal, parse):
    batch = seal([given(BIG)], LZ4)
    with pytest.raises(CorruptionError, match="claims too much") as caught:
        parse(batch, limit_bytes=LIMIT)
    assert (caught.value.path, caught.value.position) == ("a.log", 100)
    assert parse(batch, limit_bytes=len(BIG) + 100)[0].value == BIG


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
@pytest.mark.parametrize("size", [0, 1, 1000, LIMIT])
def test_up_to_the_limit(codec, size):
    plain = (b"penstock" * (size // 8 + 1))[:size]
    packed = compress(codec, plain)
    assert decompress(codec, packed, LIMIT) == plain
    assert decompress(codec, packed, size) == plain
    if size:
        with pytest.raises(CorruptionError):
            decompress(codec, packed, size - 1)


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_cut_payloads(codec):
    packed = compress(codec, b"penstock" * 20_000)
    for size in (0, 1, 7, 15, 17, len(packed) // 2, len(packed) - 1):
        with pytest.raises(CorruptionError):
            decompress(codec, packed[:size], LIMIT)


def test_what_other_writers_leave_out():
    data = b"penstock" * 1000
    assert decompress(LZ4, lz4.frame.compress(data, store_size=False), LIMIT) == data
    assert decompress(ZSTD, zstandard.ZstdCompressor(write_content_size=False).compress(data), LIMIT) == data
    assert decompress(SNAPPY, bytes(cramjam.snappy.compress_raw(data)), LIMIT) == data


def test_frames_the_java_client_can_read():
    info = lz4.frame.get_frame_info(compress(LZ4, bytes(1 << 20)))
    assert not info["block_linked"] and not info["skippable"]
    assert compress(SNAPPY, b"abc")[:16] == XERIAL


@pytest.mark.parametrize(("codec", "module", "extra"), [(ZSTD, "zstandard", "zstd"), (SNAPPY, "cramjam", "snappy")])
def test_a_missing_library_is_named(monkeypatch, codec, module, extra):
    real = importlib.import_module

    def missing(name: str, package: str | None = None) -> object:
        if name == module:
            raise builtins.ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    for call in (
        lambda: compress(codec, b""),
        lambda: decompress(codec, b"", LIMIT),
        lambda: compression.require(codec),
    ):
        with pytest.raises(CodecUnavailableError, match=rf"penstock\[{extra}\]"):
            call()


def test_names():
    assert [compression.codec_id(name) for name in ("none", "gzip", "snappy", "lz4", "zstd")] == [0, 1, 2, 3, 4]
    assert compression.codec_name(3) == "lz4"
    with pytest.raises(InvalidConfigError, match="'lz5'"):
        compression.codec_id("lz5")
    with pytest.raises(CorruptionError):
        compression.codec_name(5)
    with pytest.raises(InvalidConfigError):
        compress(9, b"")
