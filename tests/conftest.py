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


def _live() -> tuple[int, int]:
    return mapping.live_mappings(), mapping.live_descriptors()


def _grew(before: tuple[int, int]) -> bool:
    return any(now > then for now, then in zip(_live(), before, strict=True))


@pytest.fixture(autouse=True)
def nothing_left_mapped(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Maps and descriptors are gone once a test's objects are."""
    before = _live()
    yield
    request.node.funcargs.clear()
    caplog.get_records("call").clear()  # logged exceptions hold the frames that they passed through
    for _ in range(3):  # the last is for what only untracked objects (records, messages) had held
        if _grew(before):
            gc.collect()
    assert not _grew(before), f"maps and descriptors went from {before} to {_live()}"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[penstock.Broker]:
    """An open broker in a directory of its own."""
    with penstock.open(tmp_path / "data") as opened:
        yield opened
