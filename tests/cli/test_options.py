"""Reading option values."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

import penstock
from penstock.cli.options import Start, existing, parse_config, parse_start
from penstock.cli.output import bytes_text, shown, time_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("earliest", Start("earliest")),
        ("latest", Start("latest")),
        ("0", Start("offset", 0)),
        ("@1700000000000", Start("timestamp", 1_700_000_000_000)),
        ("2026-01-31T12:00:00Z", Start("timestamp", 1_769_860_800_000)),
        ("2026-01-31T12:00:00+02:00", Start("timestamp", 1_769_853_600_000)),
    ],
)
def test_start(text: str, expected: Start) -> None:
    assert parse_start(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "first", "@", "@x", "2026-13-01", "1.5"])
def test_bad_start(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is none of earliest"):
        parse_start(text)


def test_config() -> None:
    given = ["retention_ms=-1", "compression.type=lz4", "cleanup_policy=", "segment_bytes=many", "partitions=+3"]
    assert parse_config(given) == {
        "retention_ms": -1,
        "compression_type": "lz4",
        "cleanup_policy": "",
        "segment_bytes": "many",
        "partitions": "+3",
    }
    for bad in ("retention_ms", "=1", ""):
        with pytest.raises(typer.BadParameter, match="is not NAME=VALUE"):
            parse_config([bad])


def test_existing(tmp_path: Path) -> None:
    assert existing(tmp_path) == tmp_path
    (tmp_path / "file").touch()
    for name, message in (("nothing", "there is no data directory"), ("file", "is not a directory")):
        with pytest.raises(penstock.DataDirectoryError, match=message):
            existing(tmp_path / name)


def test_texts() -> None:
    assert [bytes_text(size) for size in (0, 999, 1000, 1_500_000, 2e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "2.0 TB",
    ]
    assert time_text(0) == "1970-01-01T00:00:00.000Z"
    assert time_text(2**62) == str(2**62)
    assert shown(b"a\n\xff\x1b[0m") == "a\\n\\xff\\x1b[0m"
    assert shown(None) == "null"
