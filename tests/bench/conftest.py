"""The comparison is run from the repository's root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results() -> dict[str, Any]:
    """Fixed results: two systems, one side of which failed, a third that is absent."""
    from bench.compare.systems import all_systems

    systems = all_systems()
    sides = {
        side.name: {"system": name, **side.describe()}
        for name in ("penstock", "redis", "lmdb")
        for side in systems[name].sides
    }
    rate = {"unit": "messages/s", "less_is_better": False, "durability": "page cache"}
    gone = {"absent": "no | such package"}
    none = {"n/a": "not measured for this variant"}
    values = dict.fromkeys(sides, none) | {"lmdb": gone}
    redis = {"figure": 1e5, "count": 1000, "client_cpu_us": 10.0, "rounds": [1e5]}
    return {
        "date": "2026-01-02",
        "quick": False,
        "rounds": 1,
        "environment": {"cpu": "a <fast> one"},
        "systems": {"penstock": {"version": "penstock 1"}, "redis": {"version": "Redis 7"}, "lmdb": gone},
        "sides": sides,
        "workloads": {
            "queue": {"title": "queue", **rate},
            "start": {"title": "start", **rate, "unit": "ms", "less_is_better": True},
        },
        "cells": {
            "queue": {**values, "penstock": {"figure": 3e6, "rounds": [3e6]}, "redis": redis},
            "start": {**values, "penstock": {"figure": 60.0, "rounds": [60.0]}, "redis": {"failed": "a\nreason"}},
        },
    }
