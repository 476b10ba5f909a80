"""The benchmark of aggregates runs."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("eventsourcing")


def test_it_runs(tmp_path: Path) -> None:
    from bench.aggregates import run

    results = run(tmp_path, 20, 1)
    assert len(results) == 4 and all(result.ours > 0 for result in results)
