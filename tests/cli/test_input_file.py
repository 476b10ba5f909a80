"""Cutting an input into whole lines, byte ranges and records."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from penstock.cli import input_file
from penstock.cli.input_file import InputError, open_range, read_blocks, split_ranges
from penstock.cli.record_format import Parsed, RecordFormat, format_of, parse, read_header


class DripReader:
    """Gives a few bytes at a time, as a slow pipe does."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = io.BytesIO(data)
        self._step = step

    def read(self, size: int, /) -> bytes:
        return self._data.read(min(size, self._step))


def values_of(
    data: bytes, record_format: RecordFormat, key: str | None = None, header: list[str] | None = None
) -> Parsed:
    parsed = list(parse(read_blocks(io.BytesIO(data)), record_format, header or [], key))
    keys = [key for part in parsed for key in part.keys or []]
    return Parsed([value for part in parsed for value in part.values], keys, sum(part.size_bytes for part in parsed))


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "data", [b"", b"\n", b"a", b"a\n", b"a\n\nbb\nccc", b"\n\n\n", b"long line without an end" * 9]
)
def test_blocks_are_whole_lines_and_lose_nothing(data: bytes, step: int) -> None:
    blocks = list(read_blocks(DripReader(data, step)))
    assert b"".join(blocks) == data
    assert all(block.endswith(b"\n") for block in blocks[:-1])


@pytest.mark.parametrize("parts", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("quoted", [False, True])
def test_ranges_cover_the_file_and_begin_after_line_ends(tmp_path: Path, parts: int, quoted: bool) -> None:
    data = b"".join(b"%d%s\n" % (number, b"x" * (number % 17)) for number in range(200)) + b"no line end"
    path = tmp_path / "file"
    path.write_bytes(data)
    ranges = split_ranges(path, parts, 0, quoted)
    assert b"".join(data[start:stop] for start, stop in ranges) == data
    assert all(start == 0 or data[start - 1 : start] == b"\n" for start, _ in ranges)
    assert len(ranges) <= parts


@pytest.mark.parametrize("block_bytes", [1, 5, 64, 1 << 20])
def test_a_quoted_line_end_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(input_file, "BLOCK_BYTES", block_bytes)
    rows = [b'%d,"first ""line""\nsecond, line"\r\n' % number for number in range(50)]
    path = tmp_path / "rows.csv"
    path.write_bytes(b"id,text\n" + b"".join(rows))
    ends = {8 + sum(map(len, rows[:count])) for count in range(len(rows) + 1)}
    ranges = split_ranges(path, 7, start=8, quoted=True)
    assert len(ranges) == 7
    assert {edge for pair in ranges for edge in pair} <= ends
    values = []
    for start, stop in ranges:
        with open_range(str(path), start) as file:
            for part in parse(read_blocks(file, stop - start), RecordFormat.CSV, ["id", "text"], None, start):
                values += part.values
    assert [json.loads(value)["id"] for value in values] == [str(number) for number in range(50)]
    assert json.loads(values[0])["text"] == 'first "line"\nsecond, line'


def test_an_empty_file_has_no_ranges(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert split_ranges(tmp_path / "empty", 3) == []


def test_lines_are_what_stands_between_line_feeds() -> None:
    assert values_of(b"a\r\n\nb\0\xff", RecordFormat.LINES).values == [b"a\r", b"", b"b\0\xff"]


def test_jsonl_keys() -> None:
    lines = '{"k":"ü\\n"}\n\n{"a":1,"k":7}\n {"k":null} \n{"k":[1, 2]}\n'.encode()
    parsed = values_of(lines, RecordFormat.JSONL, "k")
    assert parsed.keys == ["ü\n".encode(), b"7", None, b"[1, 2]"]
    assert parsed.values == ['{"k":"ü\\n"}'.encode(), b'{"a":1,"k":7}', b'{"k":null}', b'{"k":[1, 2]}']
    assert parsed.size_bytes == len(lines)


@pytest.mark.parametrize(
    ("data", "key"),
    [(b'{"a":1}\n{"a"\n', None), (b'{"a":1}\n{"b":1}\n', "a"), (b'{"a":1}\n[1]\n', "a"), (b'{"a":1}\nx', "a")],
)
def test_a_bad_json_line_is_named_by_its_place(data: bytes, key: str | None) -> None:
    with pytest.raises(InputError, match="the line at byte 8"):
        values_of(data, RecordFormat.JSONL, key)


def test_csv_rows_are_json_objects() -> None:
    parsed = values_of('1,"a,b"\n\n2,ü\n'.encode(), RecordFormat.CSV, "id", ["id", "text"])
    assert [json.loads(value) for value in parsed.values] == [{"id": "1", "text": "a,b"}, {"id": "2", "text": "ü"}]
    assert parsed.keys == [b"1", b"2"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1\n", "1 fields and the header 2"),
        (b"1,2,3\n", "3 fields"),
        (b'1,"open\n', "not CSV"),
        (b"1,\xff\n", "not UTF-8 at byte 2"),
    ],
)
def test_bad_csv_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        values_of(data, RecordFormat.CSV, None, ["a", "b"])


def test_header() -> None:
    data = b'\xef\xbb\xbfid,"two\nlines"\r\n1,2\n'
    reader = io.BytesIO(data)
    assert read_header(reader) == (["id", "two\nlines"], 19)
    assert reader.read() == b"1,2\n"
    assert read_header(io.BytesIO(b"")) == ([], 0)
    with pytest.raises(InputError, match="'a' more than once"):
        read_header(io.BytesIO(b"a,b,a\n"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.csv", "csv"), ("a.JSONL", "jsonl"), ("a.ndjson", "jsonl"), ("-", "lines"), ("a.log", "lines")],
)
def test_format_by_suffix(name: str, expected: str) -> None:
    assert format_of(name) == expected
