"""The event store's benchmark, very small: it still runs, and its sides do the same work."""

from __future__ import annotations

from pathlib import Path


def test_it_runs(tmp_path: Path) -> None:
    from bench import event_store

    found = event_store.run(tmp_path, count=2000, rounds=1, sizes=[1000, 2000])
    assert {result.unit for result in found} >= {"s", "us", "MiB"}
    assert all(result.ours > 0 for result in found if result.unit != "MiB")
