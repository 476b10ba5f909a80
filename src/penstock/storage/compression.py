"""Codecs of record batches: lz4 always, gzip from the standard library, zstd and snappy when installed.

Decompression never makes more than `limit_bytes`, whatever a frame claims. What a library refuses is a
`CorruptionError`. Thread and process safety: any; nothing is kept between two calls. Crash policy: nothing is written.
"""

from __future__ import annotations

import importlib
import zlib
from typing import Any

import lz4.frame

from penstock._native import builder, records
from penstock.errors import CodecUnavailableError, CorruptionError, InvalidConfigError

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
NAMES = ("none", "gzip", "snappy", "lz4", "zstd")
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_XERIAL_BLOCK_BYTES = 32 * 1024


def codec_id(name: str) -> int:
    """Kafka's number of a codec, or `InvalidConfigError`."""
    if name not in NAMES:
        raise InvalidConfigError(f"compression_type is {name!r}; allowed are {', '.join(NAMES)}")
    return NAMES.index(name)


def codec_name(number: int) -> str:
    """The name of Kafka's codec number, or `CorruptionError`."""
    if not 0 <= number < len(NAMES):
        raise CorruptionError("unknown codec", expected=f"0 to {len(NAMES) - 1}", got=number)
    return NAMES[number]


def _library(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CodecUnavailableError(
            f"{extra} needs a library that is not installed: pip install 'penstock[{extra}]'"
        ) from error


def require(number: int) -> None:
    """Raise `CodecUnavailableError` now, rather than at the first batch, when a codec's library is missing."""
    if number == ZSTD:
        _library("zstandard", "zstd")
    elif number == SNAPPY:
        _library("cramjam", "snappy")


def compress(number: int, data: Any) -> bytes:
    """`data` as Kafka's clients write it in a batch of this codec."""
    if number == LZ4:
        packed: bytes = lz4.frame.compress(data, block_linked=False, block_size=lz4.frame.BLOCKSIZE_MAX64KB)
        return packed
    if number == GZIP:
        deflate = zlib.compressobj(wbits=31)
        return deflate.compress(data) + deflate.flush()
    if number == ZSTD:
        return bytes(_library("zstandard", "zstd").ZstdCompressor().compress(data))
    if number == SNAPPY:
        return _snappy_compress(memoryview(data))
    raise InvalidConfigError(f"codec is {number}; allowed are 1 to {len(NAMES) - 1}")


def decompress(number: int, data: Any, limit_bytes: int) -> bytes:
    """The records of a batch of this codec; `CorruptionError` when they are broken or more than `limit_bytes`."""
    name = codec_name(number)
    view = memoryview(data)
    try:
        plain = _DECOMPRESS[number](view, limit_bytes)
    except (CorruptionError, CodecUnavailableError):
        raise
    except Exception as error:  # each library has errors of its own; all mean that the payload is broken
        raise CorruptionError(f"the {name} payload cannot be decompressed: {error}") from error
    if len(plain) > limit_bytes:
        raise _too_large(limit_bytes, len(plain))
    return plain


def _too_large(limit_bytes: int, got: object) -> CorruptionError:
    return CorruptionError("a compressed batch claims too much", expected=f"at most {limit_bytes} bytes", got=got)


def _lz4(view: memoryview, limit_bytes: int) -> bytes:
    claimed = lz4.frame.get_frame_info(view)["content_size"]
    if claimed > limit_bytes:
        raise _too_large(limit_bytes, claimed)
    context = lz4.frame.LZ4FrameDecompressor()
    # the room given is what bounds the work: a frame may hold far more than it claims
    plain: bytes = context.decompress(view, max_length=(claimed or limit_bytes) + 1)
    if not context.eof:
        if len(plain) > limit_bytes:
            raise _too_large(limit_bytes, f"more than {limit_bytes}")
        raise CorruptionError("the lz4 frame is cut", expected="a whole frame", got=f"{len(view)} bytes")
    return plain


def _gzip(view: memoryview, limit_bytes: int) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    plain = inflate.decompress(view, limit_bytes + 1)
    if len(plain) <= limit_bytes and not inflate.eof:
        raise CorruptionError("the gzip member is cut", expected="a whole member", got=f"{len(view)} bytes")
    return plain


def _zstd(view: memoryview, limit_bytes: int) -> bytes:
    library = _library("zstandard", "zstd")
    claimed = library.frame_content_size(bytes(view[:18]))
    if claimed > limit_bytes:
        raise _too_large(limit_bytes, claimed)
    whole = library.ZstdDecompressor(max_window_size=1 << 27)
    if claimed > 0:
        return bytes(whole.decompress(view, max_output_size=claimed))
    with whole.stream_reader(view, read_across_frames=False) as reader:
        plain = bytes(reader.read(limit_bytes + 1))
    if len(plain) <= limit_bytes and not 0 <= claimed <= len(plain):
        context = whole.decompressobj()
        context.decompress(view)
        if not context.eof:
            raise CorruptionError("the zstd frame is cut", expected="a whole frame", got=f"{len(view)} bytes")
    return plain


def _snappy_compress(data: memoryview) -> bytes:
    raw = _library("cramjam", "snappy").snappy
    parts = [_XERIAL_MAGIC, (1).to_bytes(4, "big"), (1).to_bytes(4, "big")]
    for start in range(0, len(data), _XERIAL_BLOCK_BYTES):
        block = bytes(raw.compress_raw(bytes(data[start : start + _XERIAL_BLOCK_BYTES])))
        parts += [len(block).to_bytes(4, "big"), block]
    return b"".join(parts)


def _snappy(view: memoryview, limit_bytes: int) -> bytes:
    raw = _library("cramjam", "snappy").snappy
    if bytes(view[:8]) != _XERIAL_MAGIC:
        return _snappy_block(raw, bytes(view), limit_bytes)
    if len(view) < _XERIAL_HEADER_BYTES:
        raise CorruptionError("the snappy header is cut", expected=f"{_XERIAL_HEADER_BYTES} bytes", got=len(view))
    parts, position, total = [], _XERIAL_HEADER_BYTES, 0
    while position < len(view):
        size = int.from_bytes(view[position : position + 4], "big")
        position += 4
        if size > len(view) - position:
            raise CorruptionError("a snappy block is cut", expected=f"{size} bytes", got=len(view) - position)
        block = _snappy_block(raw, bytes(view[position : position + size]), limit_bytes - total)
        total += len(block)
        position += size
        parts.append(block)
    return b"".join(parts)


def _snappy_block(raw: Any, block: bytes, limit_bytes: int) -> bytes:
    claimed = raw.decompress_raw_len(block)
    if claimed > limit_bytes:
        raise _too_large(limit_bytes, claimed)
    return bytes(raw.decompress_raw(block))


_DECOMPRESS = {GZIP: _gzip, SNAPPY: _snappy, LZ4: _lz4, ZSTD: _zstd}

builder.set_compressor(compress)
records.set_decompressor(decompress)
