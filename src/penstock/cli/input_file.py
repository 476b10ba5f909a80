"""Reading an input file by whole lines, and splitting it into byte ranges for several processes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from penstock import PenstockError

BLOCK_BYTES = 1 << 20
LONGEST_LINE_BYTES = 1 << 30  # the largest record a topic can be configured for


class InputError(PenstockError, ValueError):
    """The input file is not what it should be; the message says where."""


class Reader(Protocol):
    """What is needed of an input: `read(n)` gives what is there now, at most `n` bytes, and b"" at the end."""

    def read(self, size: int, /) -> bytes: ...


class AvailableReader:
    """A buffered pipe, read without waiting until a block is full."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._read1 = pipe.read1  # type: ignore[attr-defined]  # sys.stdin.buffer has it, BinaryIO does not say so

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, as soon as there are any."""
        data: bytes = self._read1(size)
        return data


def read_blocks(reader: Reader, size_bytes: int | None = None) -> Iterator[bytes]:
    """Blocks of whole lines until `size_bytes` were read (None: to the end). Only the last may lack its line end."""
    rest: list[bytes] = []
    held = 0
    while size_bytes is None or size_bytes > 0:
        block = reader.read(BLOCK_BYTES if size_bytes is None else min(BLOCK_BYTES, size_bytes))
        if not block:
            break
        if size_bytes is not None:
            size_bytes -= len(block)
        cut = block.rfind(b"\n") + 1
        if cut == 0:
            rest.append(block)
            held += len(block)
            if held > LONGEST_LINE_BYTES:
                raise InputError(f"a line is longer than {LONGEST_LINE_BYTES:,} bytes")
            continue
        yield b"".join([*rest, block[:cut]])
        rest, held = ([block[cut:]], len(block) - cut) if cut < len(block) else ([], 0)
    if rest:
        yield b"".join(rest)


def split_ranges(path: Path, parts: int, start: int = 0, quoted: bool = False) -> list[tuple[int, int]]:
    """At most `parts` byte ranges (start, stop) that begin after line ends and cover the file from `start`.

    `quoted`: line ends inside double quotes do not count (CSV); this needs one fast pass over the file.
    """
    size = path.stat().st_size
    targets = [start + (size - start) * part // parts for part in range(1, parts)]
    cuts = _quoted_cuts(path, targets, start) if quoted else _plain_cuts(path, targets)
    edges = sorted({start, size, *(cut for cut in cuts if start < cut < size)})
    return list(itertools.pairwise(edges))


def _plain_cuts(path: Path, targets: list[int]) -> list[int]:
    cuts = []
    with open(path, "rb") as file:
        for target in targets:
            file.seek(max(0, target - 1))
            file.readline()
            cuts.append(file.tell())
    return cuts


def _quoted_cuts(path: Path, targets: list[int], start: int) -> list[int]:
    """The first line end outside quotes at or after each target."""
    cuts: list[int] = []
    pending = list(targets)
    quotes, position = 0, start
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while pending and (block := file.read(BLOCK_BYTES)):
            counted = 0  # quotes before this place of the block are in `quotes`
            while pending and pending[0] < position + len(block):
                newline = block.find(b"\n", max(counted, pending[0] - position))
                if newline < 0:
                    break
                quotes += block.count(b'"', counted, newline)
                counted = newline + 1
                if quotes % 2 == 0:
                    cuts.append(position + counted)
                    pending.pop(0)
            quotes += block.count(b'"', counted)
            position += len(block)
    return cuts


def open_range(path: str, start: int) -> BinaryIO:
    """The file, unbuffered, at byte `start`."""
    file = open(path, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    file.seek(start, os.SEEK_SET)
    return file
