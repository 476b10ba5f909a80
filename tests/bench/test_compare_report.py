"""Bars, tables, page and charts from fixed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.compare import bars, cli, page, profile, report
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


def test_what_falls_short_is_explained(results: dict[str, Any]) -> None:
    queue = {"instructions": 1335.6, "functions": {"Delivery.claim": 0.25}}
    results["cells"]["queue"]["redis"]["figure"] = 1e6
    results["cells"]["latency-10k"] = {
        "floor": {"figure": 1.0, "p99_us": 81.5},
        "penstock": {"figure": 5.0, "p99_us": 90.0, "stolen_percent": 1.25},
        "confluent": {"figure": 1e3, "p99_us": 2e3},
    }
    results["workloads"]["latency-10k"] = {"less_is_better": True}
    text = profile.section(results, bars.bars(results), {profile.QUEUE: queue})
    assert "| receive and ack_many of a queue | 1,336 | Delivery.claim 25% |" in text
    assert "Redis streams: instructions a record: 1,336 of receive and ack_many of a queue." in text
    assert (
        "p99 of a bare word of shared memory, without a log, is 81.5 us; of the cores' time the host took 1.2 %" in text
    )
    assert "start to first message stored and read: no instructions are counted on this path." in text


def test_nothing_short_is_said(results: dict[str, Any]) -> None:
    assert profile.section(results, [], {}).endswith("No bar falls short.")


def test_cpu_is_set_against_the_broker_and_against_both_ends(results: dict[str, Any]) -> None:
    results["workloads"]["footprint"] = {"less_is_better": True}
    results["cells"]["footprint"] = {
        "penstock": {"figure": 0.2},
        "penstock-values": {"figure": 0.15},
        "penstock-columns": {"figure": 0.1},
        "confluent": {"figure": 4.0, "server_cpu_s": 0.5},
    }
    found = [(line.measured, line.verdict) for line in bars.bars(results) if line.name.startswith("CPU per million")]
    assert [ratio for ratio, _ in found] == pytest.approx([0.4, 0.05, 0.3, 0.0375, 0.2, 0.025])
    assert [verdict for _, verdict in found] == ["short", "reached"] * 3


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
