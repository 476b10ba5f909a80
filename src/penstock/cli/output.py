"""What commands print: data on stdout, everything else on stderr."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text


def stdout() -> Console:
    """The console for text on stdout; wide when it is not a terminal, so that nothing is cut."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


def stderr() -> Console:
    """The console for notes and progress."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def discard_stdout() -> None:
    """After a broken pipe: what is still buffered goes nowhere, so that the interpreter ends quietly."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def print_error(message: str) -> None:
    """One red line on stderr."""
    stderr().print(Text(" ".join(f"error: {message}".split()), style="bold red"))


def note(message: str) -> None:
    """A line on stderr that is neither data nor an error."""
    stderr().print(Text(message, style="dim"))


def say(message: str, style: str = "") -> None:
    """A line of text on stdout."""
    stdout().print(Text(message, style=style))


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()) -> None:
    """A plain table on stdout; `numbers`: positions of the columns to align on the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place in numbers else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    stdout().print(table)


def bytes_text(size_bytes: float) -> str:
    """A size for people: `1.5 MB` (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size_bytes) < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def rate_text(records: int, size_bytes: int, seconds: float) -> str:
    """`1,000,000 records (95.0 MB) in 0.50 s: 2,000,000 records/s, 190.0 MB/s`."""
    seconds = max(seconds, 1e-6)
    rates = f"{records / seconds:,.0f} records/s, {bytes_text(size_bytes / seconds)}/s"
    return f"{records:,} records ({bytes_text(size_bytes)}) in {seconds:.2f} s: {rates}"


def time_text(timestamp_ms: int) -> str:
    """A timestamp in ISO 8601, UTC; the number itself where no calendar reaches."""
    try:
        time = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(timestamp_ms)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def put_bytes(document: dict[str, Any], name: str, data: bytes | None) -> None:
    """Add bytes to a JSON object: as text under `name`, or under `<name>_base64` when they are not UTF-8."""
    if data is None:
        document[name] = None
        return
    try:
        document[name] = data.decode()
    except UnicodeDecodeError:
        document[f"{name}_base64"] = base64.b64encode(data).decode()


def record_document(record: Any) -> dict[str, Any]:
    """A `Record` as a JSON object."""
    document: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
    }
    put_bytes(document, "key", record.key)
    put_bytes(document, "value", record.value)
    headers = []
    for name, value in record.headers:
        header: dict[str, Any] = {"name": name}
        put_bytes(header, "value", value)
        headers.append(header)
    document["headers"] = headers
    return document


def record_line(record: Any) -> str:
    """A `Record` on one line for people."""
    parts = [f"{record.topic}-{record.partition}@{record.offset}", time_text(record.timestamp_ms)]
    if record.key is not None:
        parts.append(f"key={shown(record.key)}")
    parts += [f"{name}={shown(value)}" for name, value in record.headers]
    return "  ".join([*parts, shown(record.value)])


def shown(data: bytes | None) -> str:
    """Bytes for people: text where they are UTF-8, with control characters escaped."""
    if data is None:
        return "null"
    text = data.decode(errors="backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
