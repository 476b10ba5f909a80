"""Fixtures shared by all tests, and the check that nothing mapped is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import penstock
from penstock._native import mapping

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy starts threads in every process otherwise, for nothing
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a run in the background inherits it, and what it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)

SLOW_TIMEOUT_S = 3600


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long runs are asked for by name, and have the time that they take on a busy machine."""
    asked = "slow" in str(config.getoption("markexpr"))
    for item in items:
        if item.get_closest_marker("slow") is None:
            continue
        if not asked:
            item.add_marker(pytest.mark.skip(reason="slow: run by `pytest -m slow`"))
        elif item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))


def pytest_collection_finish() -> None:
    """What is loaded by now lives as long as the run: collecting garbage after a test need not look through it."""
    gc.collect()
    gc.freeze()


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
    if _grew(before):
        gc.collect(1)  # what is young, which is most often enough
    looked = 0
    while _grew(before) and looked < 3:  # the last is for what only untracked objects (records, messages) had held
        gc.collect()
        looked += 1
    assert not _grew(before), f"maps and descriptors went from {before} to {_live()}"
    if looked:
        gc.freeze()  # likewise: modules that the tests up to here have loaded


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[penstock.Broker]:
    """An open broker in a directory of its own."""
    with penstock.open(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty tmpfs of 12 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `mount` command; mounting a small tmpfs needs root on Linux")
    if done.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted (needs root on Linux): {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def take_room(path: Path, leave: int = 0) -> Path:
    """Take all room but `leave` bytes."""
    ballast = path / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(file.tell() // 4096 * 4096 - leave, 0))
    return ballast


@pytest.fixture
def fill() -> Callable[..., Path]:
    """`fill(path, leave=0)` takes all room of a disk but so many bytes, by a file that it returns."""
    return take_room
