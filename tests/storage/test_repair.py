"""`repair` keeps all that is good, at unchanged offsets, and saves what it takes out."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from penstock.errors import LockedError
from penstock.storage.repair import repair
from penstock.storage.segment_dump import iter_records
from penstock.storage.verify import verify

ALL = list(range(36))


def log_of(data: Path, base: int, suffix: str = ".log") -> Path:
    return data / "t-0" / f"{base:020d}{suffix}"


def offsets(data: Path) -> list[int]:
    found = []
    for log in sorted((data / "t-0").glob("*.log")):
        for record in iter_records(log):
            assert record.value is not None and record.value.startswith(f"{record.offset}:".encode())
            found.append(record.offset)
    return found


def flip(path: Path, position: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 0x40
    path.write_bytes(damaged)


def test_nothing_to_do(data: Path) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*.*") if path.is_file()}
    report = repair(data)
    assert report.ok and report.actions == []
    assert {path: path.read_bytes() for path in before} == before


def test_every_byte_of_the_last_segment_flipped(data: Path, tmp_path: Path) -> None:
    size = log_of(data, 30).stat().st_size
    for position in range(0, size):
        if position % (size // 3) in range(12, 16):
            continue
        copy = tmp_path / "copy"
        shutil.copytree(data, copy)
        flip(log_of(copy, 30), position)
        report = repair(copy)
        lost = 30 + position // (size // 3) * 2
        assert report.ok and report.actions, position
        assert offsets(copy) == [offset for offset in ALL if offset not in (lost, lost + 1)]
        shutil.rmtree(copy)


def test_cut_at_every_byte_of_the_last_batch(data: Path, tmp_path: Path) -> None:
    whole = log_of(data, 30).read_bytes()
    begin = len(whole) // 3 * 2
    for size in range(begin + 8, len(whole)):  # before that only zeros of the offset are left
        log_of(data, 30).write_bytes(whole[:size])
        report = repair(data)
        assert report.ok and report.actions[0].kind == "truncated"
        assert log_of(data, 30).read_bytes() == whole[:begin] and offsets(data) == ALL[:-2]
        saved = data / "t-0" / "repair" / f"{log_of(data, 30).name}.removed-{begin}"
        assert saved.read_bytes() == whole[begin:size]
        shutil.rmtree(data / "t-0" / "repair")


@pytest.mark.parametrize("base", [0, 10])
def test_damage_in_a_sealed_segment(data: Path, base: int) -> None:
    log = log_of(data, base)
    flip(log, log.stat().st_size - 3)
    lost = {0: (8, 9), 10: (28, 29)}[base]
    report = repair(data)
    assert report.ok and {action.kind for action in report.actions} >= {"cut", "filled"}
    assert offsets(data) == [offset for offset in ALL if offset not in lost]
    assert repair(data).actions == []


def test_missing_segment_and_emptied_segment(data: Path) -> None:
    for suffix in (".log", ".index", ".timeindex"):
        log_of(data, 10, suffix).unlink()
    log_of(data, 0).write_bytes(b"")
    assert repair(data).ok
    assert offsets(data) == ALL[30:]


def test_indexes_are_rebuilt(data: Path) -> None:
    before = {path: path.read_bytes() for path in (data / "t-0").iterdir()}
    for base in (0, 10, 30):
        log_of(data, base, ".index").unlink()
        log_of(data, base, ".timeindex").write_bytes(b"\x01" * 13)
    report = repair(data)
    assert report.ok and {action.kind for action in report.actions} == {"index"}
    assert {path: path.read_bytes() for path in (data / "t-0").iterdir()} == before


def test_dry_run_changes_nothing(data: Path) -> None:
    flip(log_of(data, 10), 100)
    log_of(data, 0, ".index").unlink()
    before = {path: path.read_bytes() for path in (data / "t-0").iterdir()}
    report = repair(data, dry_run=True)
    assert {action.kind for action in report.actions} == {"cut", "filled", "index"}
    assert {path: path.read_bytes() for path in (data / "t-0").iterdir()} == before
    assert not verify(data).ok


def test_needs_the_directory_alone(data: Path) -> None:
    with open(data / "alive.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(LockedError):
            repair(data)


@pytest.mark.parametrize("survived", range(4))
def test_a_crash_before_any_new_file_is_in_place(data: Path, monkeypatch: pytest.MonkeyPatch, survived: int) -> None:
    flip(log_of(data, 10), 100)
    replace, left = os.replace, [survived]

    def crash(source: Path, target: Path) -> None:
        if left[0] == 0:
            raise OSError(5, "power cut")
        left[0] -= 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(OSError, match="Input/output"):
            repair(data)
    assert repair(data).ok and offsets(data) == ALL[:10] + ALL[12:]
