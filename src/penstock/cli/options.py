"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

import penstock

Data = Annotated[
    Path,
    typer.Option("--data", envvar="PENSTOCK_DATA", metavar="DIR", help="The data directory.", show_default=True),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Processes = Annotated[int, typer.Option("--processes", min=1, max=256, help="Worker processes.")]
Config = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="NAME=VALUE", help="Topic configuration, as retention_ms=3600000; repeatable."),
]
DATA_DEFAULT = Path("penstock-data")


class Compression(enum.StrEnum):
    """Codecs of a batch."""

    NONE = "none"
    GZIP = "gzip"
    SNAPPY = "snappy"
    LZ4 = "lz4"
    ZSTD = "zstd"


def input_file(file: Path) -> Path:
    """`file` if it can be read (`-` is stdin); anything else is wrong usage."""
    if str(file) == "-":
        return file
    wrong = "does not exist" if not file.exists() else "is a directory" if file.is_dir() else ""
    if wrong or not os.access(file, os.R_OK):
        raise typer.BadParameter(f"file {str(file)!r} {wrong or 'may not be read'}")
    return file


def existing(data: Path) -> Path:
    """`data`, or `DataDirectoryError` when nothing is there: commands that only read make no directory."""
    if not data.exists():
        raise penstock.DataDirectoryError(2, f"there is no data directory {str(data)!r}; choose one by --data DIR")
    if not data.is_dir():
        raise penstock.DataDirectoryError(20, f"{str(data)!r} is not a directory")
    return data


def parse_config(settings: Iterable[str] | None) -> dict[str, Any]:
    """`name=value` pairs as arguments for `create_topic`. Kafka's dotted names are taken too (`retention.ms`)."""
    integers = {field.name for field in dataclasses.fields(penstock.TopicConfig) if field.type in (int, "int")}
    config: dict[str, Any] = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        name = name.strip().replace(".", "_")
        if not equals or not name:
            raise typer.BadParameter(f"{setting!r} is not NAME=VALUE", param_hint="--config")
        config[name] = _integer(value.strip()) if name in integers else value.strip()
    return config


def _integer(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text  # the broker refuses the text, saying what is allowed


@dataclasses.dataclass(frozen=True)
class Start:
    """Where to start reading: `kind` is earliest, latest, offset or timestamp; `value` an offset or milliseconds."""

    kind: str
    value: int = 0


def parse_start(text: str) -> Start:
    """`earliest`, `latest`, an offset, `@milliseconds`, or an ISO 8601 time (local time unless it names a zone)."""
    if text in ("earliest", "latest"):
        return Start(text)
    if text.isdecimal() and text.isascii():
        return Start("offset", int(text))
    if text.startswith("@") and text[1:].isdecimal():
        return Start("timestamp", int(text[1:]))
    try:
        return Start("timestamp", max(0, round(datetime.fromisoformat(text).timestamp() * 1000)))
    except (ValueError, OverflowError, OSError) as error:
        allowed = "earliest, latest, an offset, @MILLISECONDS or a time such as 2026-01-31T12:00"
        raise typer.BadParameter(f"{text!r} is none of {allowed}", param_hint="--from") from error


def worker_count(wanted: int, most: int) -> int:
    """`wanted` workers, but not more than there are parts of the work."""
    return max(1, min(wanted, most))


def default_processes() -> int:
    """Two, or one on a machine with a single core."""
    return min(2, os.cpu_count() or 1)
