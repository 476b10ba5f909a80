"""Bells: who sleeps is woken, who waits awake sees the ring, and none is lost between the two."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from penstock._native.bell import Bell, Bells

PATIENCE_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file of bells, all at rest."""
    place = tmp_path / "bells"
    place.write_bytes(bytes(65536))
    return str(place)


def test_every_ring_is_heard_asleep_or_awake(path: str) -> None:
    """Two handles play ball. A lost ring would leave one of them waiting until its time is up."""
    turns, heard = 5000, [0, 0]
    bells = [Bell(Bells(path), 3), Bell(Bells(path), 3)]
    ball = [0]

    def play(side: int) -> None:
        generator = random.Random(side)
        for turn in range(side, turns, 2):
            while True:
                seen = bells[side].arm()
                if ball[0] == turn:
                    break
                if not bells[side].wait(seen, PATIENCE_S):
                    return
            heard[side] += 1
            if generator.random() < 0.01:
                time.sleep(0.002)  # long enough for the other side to fall asleep
            ball[0] = turn + 1
            bells[side].ring()

    players = [threading.Thread(target=play, args=(side,)) for side in (0, 1)]
    for player in players:
        player.start()
    for player in players:
        player.join()
    assert heard == [turns // 2, turns // 2]


def test_one_that_arms_later_does_not_keep_a_sleeper_from_being_woken(path: str) -> None:
    sleeper, other = Bell(Bells(path), 0), Bell(Bells(path), 0)
    woken: list[bool] = []
    seen = sleeper.arm()
    thread = threading.Thread(target=lambda: woken.append(sleeper.wait(seen, PATIENCE_S)))
    thread.start()
    while not _sleeps(path):
        time.sleep(0.001)
    other.arm()
    assert _sleeps(path)
    other.ring()
    thread.join()
    assert woken == [True]
    assert not _sleeps(path)


def test_time_runs_out(path: str) -> None:
    bell = Bell(Bells(path), 0)
    assert not bell.wait(bell.arm(), 0.001)


def test_ring_before_the_wait_is_heard(path: str) -> None:
    bell = Bell(Bells(path), 0)
    seen = bell.arm()
    bell.ring()
    assert bell.wait(seen, PATIENCE_S)


def _sleeps(path: str) -> bool:
    """Whether the file says that somebody sleeps on bell 0."""
    return Path(path).read_bytes()[4:8] == (2).to_bytes(4, "little")
