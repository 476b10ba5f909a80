"""Made-up orders for the demo: the same file for the same number of records."""

from __future__ import annotations

from pathlib import Path

from penstock.cli.progress import ProgressBar

_COUNTRIES = ("DE", "FR", "GB", "ES", "IT", "NL", "PL", "SE", "US", "JP", "BR")
_CHUNK = 50_000


def write_orders(path: Path, records: int) -> None:
    """Write `records` orders as JSON lines of about 100 bytes, keyed by `customer`. Replaces the file."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "w", encoding="ascii") as file, ProgressBar("making orders", records) as bar:
        for first in range(0, records, _CHUNK):
            last = min(first + _CHUNK, records)
            file.write("".join(map(_order, range(first, last))))
            bar.update(last, last, file.tell())
    temporary.replace(path)


def _order(number: int) -> str:
    mixed = number * 2654435761 & 0xFFFFFFFF  # spreads customers and totals without a random generator
    return (
        f'{{"order":"o-{number:08d}","customer":"c-{mixed % 50_021:05d}","country":"{_COUNTRIES[mixed % 11]}",'
        f'"total_cents":{500 + mixed % 99_500},"minute":{number // 700}}}\n'
    )
