"""The observability page: its snippets run, one after another, and its table is what is exported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from children import run

pytest.importorskip("prometheus_client")
pytest.importorskip("opentelemetry")

from penstock.observe.alerts import MEASURES
from penstock.observe.instruments import ALL, Instrument

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text(encoding="utf-8")


def row(instrument: Instrument) -> str:
    """The line of the table."""
    labels = " ".join(f"`{label}`" for label in instrument.labels)
    return f"| `{instrument.full_name}` | {instrument.kind} | {labels} | {instrument.description} |"


def test_snippets_run(tmp_path: Path) -> None:
    code = "\n".join([*re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), "broker.close()"])
    done = run(code, cwd=tmp_path, text=True)
    assert done.returncode == 0, done.stderr
    assert "b'welcome'" in done.stdout


def test_every_metric_is_in_the_table() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `penstock_")]
    assert rows == [row(instrument) for instrument in ALL]


def test_every_measure_of_alerts_is_named() -> None:
    section = PAGE.split("## Alerts", 1)[1].split("## ", 1)[0]
    assert all(f"`{measure}`" in section for measure in MEASURES)
