"""The benchmark of the event-driven patterns runs, in small."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("eventsourcing")


@pytest.mark.parametrize(("part", "count"), [("store", 10), ("aggregates", 4), ("patterns", 14), ("sagas", 5)])
def test_it_runs(tmp_path: Path, part: str, count: int) -> None:
    from bench import events

    found = events.run(tmp_path, rounds=1, only=part, quick=True, full=False)
    assert len(found) == count and all(result.ours >= 0 for result in found)
    assert not list(tmp_path.iterdir())
