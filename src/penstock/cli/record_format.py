"""Turning the lines of an input into values and keys: `lines`, `csv` or `jsonl`."""

from __future__ import annotations

import csv
import enum
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from penstock.cli.input_file import InputError, Reader

CSV_ROWS = 5_000
_BOM = b"\xef\xbb\xbf"


class RecordFormat(enum.StrEnum):
    """How the input is cut into records."""

    AUTO = "auto"
    LINES = "lines"
    CSV = "csv"
    JSONL = "jsonl"


class Parsed(NamedTuple):
    """Records of one block of input. `keys` is None when no key field was asked for."""

    values: list[bytes]
    keys: list[bytes | None] | None
    size_bytes: int


def format_of(name: str) -> RecordFormat:
    """The format by the suffix of a file's name; lines where it says nothing."""
    suffix = Path(name).suffix.lower()
    return {".csv": RecordFormat.CSV, ".jsonl": RecordFormat.JSONL, ".ndjson": RecordFormat.JSONL}.get(
        suffix, RecordFormat.LINES
    )


def read_header(reader: Reader) -> tuple[list[str], int]:
    """The field names in the first row of a CSV input, and the bytes they take. Leaves the reader behind that row."""
    row = b""
    while not row.endswith(b"\n") or row.count(b'"') % 2:
        byte = reader.read(1)
        if not byte:
            break
        row += byte
        if len(row) > 1 << 20:
            raise InputError("the first row of the CSV input is longer than 1 MiB; a header is expected")
    fields = next(csv.reader(io.StringIO(_text(row.removeprefix(_BOM), 0), newline="")), [])
    twice = sorted({field for field in fields if fields.count(field) > 1})
    if twice:
        raise InputError(f"the CSV header names {', '.join(map(repr, twice))} more than once")
    return fields, len(row)


def parse(
    blocks: Iterable[bytes], record_format: RecordFormat, header: list[str], key_field: str | None, start: int = 0
) -> Iterator[Parsed]:
    """Records of `blocks` (whole lines from byte `start` of the input). Raises `InputError` that says where."""
    if record_format is RecordFormat.CSV:
        return _parse_csv(blocks, header, key_field, start)
    if record_format is RecordFormat.JSONL:
        return _parse_jsonl(blocks, key_field, start)
    return _parse_lines(blocks)


def _split(block: bytes) -> list[bytes]:
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _parse_lines(blocks: Iterable[bytes]) -> Iterator[Parsed]:
    for block in blocks:
        yield Parsed(_split(block), None, len(block))


def _parse_jsonl(blocks: Iterable[bytes], key_field: str | None, start: int) -> Iterator[Parsed]:
    position = start
    key_of = _key_reader(key_field) if key_field is not None else None
    check = msgspec.json.Decoder(msgspec.Raw).decode
    for block in blocks:
        lines = [line.strip() for line in _split(block)]
        values = [line for line in lines if line]
        try:
            if key_of is None:
                for value in values:
                    check(value)
                keys = None
            else:
                keys = [key_of(value) for value in values]
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _first_bad_line(block, position, key_of or check) from None
        yield Parsed(values, keys, len(block))
        position += len(block)


def _key_reader(key_field: str) -> Any:
    row = msgspec.defstruct("Row", [("key", msgspec.Raw)], rename={"key": key_field})
    decode_row = msgspec.json.Decoder(row).decode
    decode_text = msgspec.json.Decoder(str).decode

    def key_of(line: bytes) -> bytes | None:
        """The field as bytes: a string's text, nothing for null, anything else as its JSON."""
        raw = bytes(decode_row(line).key)  # type: ignore[attr-defined]  # the struct is made above
        if raw[:1] == b'"':
            return decode_text(raw).encode()
        return None if raw == b"null" else raw

    return key_of


def _first_bad_line(block: bytes, position: int, check: Any) -> InputError:
    for line in _split(block):
        if line.strip():
            try:
                check(line.strip())
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                return InputError(f"the line at byte {position:,}: {error}")
        position += len(line) + 1
    raise AssertionError("a block that was refused has no bad line")


def _parse_csv(blocks: Iterable[bytes], header: list[str], key_field: str | None, start: int) -> Iterator[Parsed]:
    taken = 0  # bytes of input taken so far: the last progress may run a block ahead of the rows

    def lines() -> Iterator[Iterable[str]]:
        nonlocal taken
        for block in blocks:
            text = _text(block, start + taken)
            taken += len(block)
            yield io.StringIO(text, newline="")

    csv.field_size_limit(1 << 30)
    reader = csv.reader(itertools.chain.from_iterable(lines()), strict=True)
    key_place = header.index(key_field) if key_field is not None else -1
    width, told = len(header), 0
    encode = msgspec.json.Encoder().encode
    try:
        while rows := list(itertools.islice(reader, CSV_ROWS)):
            rows = [row for row in rows if row]
            if any(len(row) != width for row in rows):
                bad = next(row for row in rows if len(row) != width)
                raise InputError(
                    f"a CSV row has {len(bad)} fields and the header {width}: {','.join(bad)[:80]!r} "
                    f"(within {reader.line_num:,} lines from byte {start:,})"
                )
            values = [encode(dict(zip(header, row, strict=True))) for row in rows]
            keys: list[bytes | None] | None = [row[key_place].encode() for row in rows] if key_place >= 0 else None
            yield Parsed(values, keys, taken - told)
            told = taken
    except csv.Error as error:
        raise InputError(f"not CSV: {error} (line {reader.line_num:,} from byte {start:,})") from error


def _text(block: bytes, position: int) -> str:
    try:
        return block.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the input is not UTF-8 at byte {position + error.start:,}") from error
