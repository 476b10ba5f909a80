"""Bars, tables, page and charts from fixed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.compare import bars, cli, page, report
from bench.compare.results import best, figure

KEPT_BYTES = 150_000


def bar(results: dict[str, Any], words: str) -> bars.Bar:
    """The one line that contains the words."""
    (found,) = [line for line in bars.bars(results) if words in line.name]
    return found


def test_a_ratio_that_is_reached(results: dict[str, Any]) -> None:
    line = bar(results, "Redis streams")
    assert (line.measured, line.verdict) == (30.0, "reached")


def test_a_ratio_that_falls_short(results: dict[str, Any]) -> None:
    results["cells"]["queue"]["redis"]["figure"] = 1e6
    assert bar(results, "Redis streams").verdict == "short"


def test_a_time_that_falls_short(results: dict[str, Any]) -> None:
    line = bar(results, "start to first message")
    assert (line.measured, line.verdict) == (60.0, "short")


def test_what_was_not_measured_is_no_result(results: dict[str, Any]) -> None:
    line = bar(results, "NATS")
    assert (line.peer, line.measured, line.verdict) == (None, None, "no result")


def test_figures_are_looked_up(results: dict[str, Any]) -> None:
    assert figure(results, "queue", "redis", "client_cpu_us") == 10
    assert figure(results, "queue", "lmdb") is None
    assert best(results, "queue", ("redis", "penstock", "lmdb")) == "penstock"
    assert best(results, "queue", ("lmdb",)) is None


def test_markdown_names_the_absent_the_failed_and_the_inapplicable(results: dict[str, Any]) -> None:
    text = report.markdown(results, bars.bars(results))
    assert "- lmdb: no / such package" in text
    assert "| Redis streams | failed: a reason |" in text
    assert "| Penstock (Python, in process) | 3 M |" in text
    assert " 0 |" not in text.split("## Figures")[1].split("## How")[0], "what is missing is never a zero"


def test_page_is_whole_and_asks_for_nothing(results: dict[str, Any]) -> None:
    results["bars"] = [line.to_dict() for line in bars.bars(results)]
    text = page.html(results)
    assert "a &lt;fast&gt; one" in text and "no | such package" in text
    assert "src=" not in text and "href=" not in text and "<script" not in text
    svg = text[text.index("<svg") : text.index("</svg>") + 6]
    assert len(ElementTree.fromstring(svg).findall("rect")) == 2


def test_files_are_kept_and_small(results: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results["bars"] = []
    cli.keep(tmp_path, results, "text")
    made = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(made) == {
        "compare.json",
        "compare.md",
        "compare.html",
        "compare-rates.png",
        "compare-footprint.png",
    }
    assert max(made.values()) < KEPT_BYTES
    assert json.loads((tmp_path / "compare.json").read_text()) == results
