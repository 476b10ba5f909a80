"""Fixtures shared by all tests, and the check that nothing mapped is left behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock._native import mapping


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long runs are asked for by name."""
    if "slow" not in str(config.getoption("markexpr")):
        for item in items:
            if item.get_closest_marker("slow") is not None:
                item.add_marker(pytest.mark.skip(reason="slow: run by `pytest -m slow`"))


@pytest.fixture(autouse=True)
def nothing_left_mapped(request: pytest.FixtureRequest) -> Iterator[None]:
    """Maps and descriptors are gone once a test's objects are."""
    gc.collect()
    before = mapping.live_mappings(), mapping.live_descriptors()
    yield
    request.node.funcargs.clear()
    gc.collect()
    gc.collect()  # what only untracked objects (records, messages) had held is found by the second look
    after = mapping.live_mappings(), mapping.live_descriptors()
    assert after[0] <= before[0] and after[1] <= before[1], f"mappings and descriptors went from {before} to {after}"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[penstock.Broker]:
    """An open broker in a directory of its own."""
    with penstock.open(tmp_path / "data") as opened:
        yield opened
