"""The bench of the event patterns runs, in small."""

from __future__ import annotations

from pathlib import Path

from bench.event_patterns import EventPatterns


def test_it_runs(tmp_path: Path) -> None:
    found = EventPatterns(tmp_path, 200, 1, 500).run()
    assert len(found) == 14 and all(result.ours > 0 for result in found)
