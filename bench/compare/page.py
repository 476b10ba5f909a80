"""A page of its own: every workload as bars drawn in SVG, no script, nothing fetched."""

from __future__ import annotations

import html as escaping
import math
from typing import Any

from bench.compare.charts import bars_of
from bench.compare.report import COMPARABLE, short

Results = dict[str, Any]
WIDTH, LABEL, LINE = 860, 260, 20
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.5em}h2{font-size:1.05em;margin:1.8em 0 .2em}table{border-collapse:collapse;font-size:13px}
td,th{border-bottom:1px solid #ddd;padding:3px 8px;text-align:left}td.n{text-align:right}
.reached{color:#1a7f37}.short{color:#b35900}small,.none{color:#666}svg text{font:12px system-ui,sans-serif}
@media(prefers-color-scheme:dark){body{background:#16191c;color:#ddd}svg text{fill:#ddd}td,th{border-color:#444}}"""


def html(results: Results) -> str:
    """The page."""
    machine = ", ".join(f"{name} {value}" for name, value in results["environment"].items())
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Penstock beside Kafka and others</title>",
        f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style>",
        "<h1>Penstock beside Kafka and others</h1>",
        f"<p>{results['date']}, medians of {results['rounds']} interleaved rounds. <small>{_safe(machine)}</small></p>",
        f"<p>{_safe(COMPARABLE)}</p>",
        "<p><span style='color:#0b6e99'>&#9632;</span> Penstock, <span style='color:#8aa9b8'>&#9632;</span> another"
        " library, <span style='color:#d08a4e'>&#9632;</span> a server over a socket. Bars are logarithmic.</p>",
        "<h2>Bars</h2>",
        _bars(results.get("bars", [])),
        *(_section(results, workload) for workload in results["workloads"]),
        "<h2>Settings</h2>",
        _settings(results),
    ]
    return "\n".join(parts) + "</html>\n"


def chart(lines: list[tuple[str, float, str]]) -> str:
    """Horizontal logarithmic bars."""
    low = min(value for _, value, _ in lines) / 2
    span = math.log(max(value for _, value, _ in lines) / low) or 1.0
    room = WIDTH - LABEL - 80
    shapes = []
    for number, (label, value, colour) in enumerate(lines):
        top, length = number * LINE, max(2.0, room * math.log(value / low) / span)
        shapes.append(
            f"<text x='{LABEL - 8}' y='{top + 14}' text-anchor='end'>{_safe(label)}</text>"
            f"<rect x='{LABEL}' y='{top + 3}' width='{length:.0f}' height='14' fill='{colour}'/>"
            f"<text x='{LABEL + length + 6:.0f}' y='{top + 14}'>{short(value)}</text>"
        )
    height = len(lines) * LINE
    return f"<svg viewBox='0 0 {WIDTH} {height}' width='100%' role='img'>{''.join(shapes)}</svg>"


def _section(results: Results, workload: str) -> str:
    about, lines = results["workloads"][workload], bars_of(results, workload)
    head = f"<h2>{_safe(about['title'])}</h2><small>{_safe(about['unit'])}, {about['durability']}</small>"
    return head + (chart(lines) if lines else "<p class='none'>nothing measured</p>") + _reasons(results, workload)


def _reasons(results: Results, workload: str) -> str:
    found = []
    for side, cell in results["cells"][workload].items():
        for kind in ("absent", "n/a", "failed"):
            if kind in cell and cell[kind] != "not measured for this variant":
                found.append(f"{_safe(results['sides'][side]['label'])}: {kind}, {_safe(cell[kind])}")
    return f"<p class='none'><small>{'; '.join(found)}</small></p>" if found else ""


def _bars(found: list[dict[str, Any]]) -> str:
    rows = [
        f"<tr><td>{_safe(bar['name'])}<td class='n'>{_number(bar['ours'])}<td class='n'>{_number(bar['peer'])}"
        f"<td>{bar['unit']}<td class='n'>{_number(bar['measured'])}<td class='n'>"
        f"{'&le;' if bar['at_most'] else '&ge;'} {bar['limit']:g}<td class='{bar['verdict']}'>{bar['verdict']}</tr>"
        for bar in found
    ]
    head = "<tr><th>bar<th>Penstock<th>peer<th>unit<th>measured<th>aim<th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _settings(results: Results) -> str:
    rows = [
        f"<tr><td>{_safe(side['label'])}<td>{side['language']}, {side['where']}<td>{_safe(side['settings'])}"
        f"<td>{_safe(side['durability'])}</tr>"
        for side in results["sides"].values()
    ]
    return f"<table>{''.join(rows)}</table>"


def _number(value: float | None) -> str:
    return "" if value is None else short(value)


def _safe(text: str) -> str:
    return escaping.escape(text)
