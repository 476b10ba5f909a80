"""PNG charts of a run: rates, latencies, footprints. Small, so that they can lie in the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.compare.report import short

Results = dict[str, Any]
OURS, LIBRARY, SERVER = "#0b6e99", "#8aa9b8", "#d08a4e"
SHOWN = {
    "compare-rates.png": ("produce-100", "consume", "queue"),
    "compare-latency.png": ("latency-1k", "latency-10k"),
    "compare-footprint.png": ("footprint", "start"),
}


def bars_of(results: Results, workload: str) -> list[tuple[str, float, str]]:
    """Label, figure and colour of every side that was measured, the best first."""
    cells, sides = results["cells"].get(workload, {}), results["sides"]
    found = [(side, cell["figure"]) for side, cell in cells.items() if cell.get("figure")]
    less = results["workloads"].get(workload, {}).get("less_is_better", False)
    found.sort(key=lambda pair: pair[1] if less else -pair[1])
    return [(sides[side]["label"], value, colour(sides[side])) for side, value in found]


def colour(side: dict[str, Any]) -> str:
    """Penstock, another library, or a server."""
    if side["system"] == "penstock":
        return OURS
    return LIBRARY if side["where"] == "in process" else SERVER


def draw(results: Results, directory: Path) -> list[Path]:
    """One picture for each group of workloads that has figures."""
    import matplotlib

    matplotlib.use("Agg")
    made = []
    for name, workloads in SHOWN.items():
        parts = [(workload, lines) for workload in workloads if (lines := bars_of(results, workload))]
        if parts:
            made.append(_picture(results, parts, directory / name))
    return made


def _picture(results: Results, parts: list[tuple[str, list[tuple[str, float, str]]]], path: Path) -> Path:
    from matplotlib import pyplot

    most = max(len(lines) for _, lines in parts)
    figure, axes = pyplot.subplots(1, len(parts), figsize=(5.2 * len(parts), 0.9 + 0.26 * most), squeeze=False)
    for axis, (workload, lines) in zip(axes[0], parts, strict=True):
        about = results["workloads"][workload]
        lines = lines[::-1]
        axis.barh([line[0] for line in lines], [line[1] for line in lines], color=[line[2] for line in lines])
        axis.set_xscale("log")
        axis.set_title(f"{about['title']}, {about['unit']} (log scale)", fontsize=8)
        axis.tick_params(labelsize=7)
        for place, line in enumerate(lines):
            axis.text(line[1], place, f" {short(line[1])}", va="center", fontsize=7)
        axis.margins(x=0.18)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    pyplot.close(figure)
    return path
