"""Scanning log files: whole, cut anywhere, with any bit flipped, random."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import penstock.storage.compression  # noqa: F401
from penstock._native.builder import BatchBuilder
from penstock.errors import CorruptionError
from penstock.storage.segment_dump import iter_batches, iter_records
from penstock.storage.segment_scan import scan_segment

LEADER_EPOCH = range(12, 16)  # not covered by the CRC, without a meaning here


def sealed(base: int, values: list[bytes], timestamp_ms: int = 1000, codec: int = 0) -> bytes:
    builder = BatchBuilder()
    for place, value in enumerate(values):
        builder.append(value, b"k", [("h", b"1"), ("n", None)], timestamp_ms + place)
    builder.seal(codec)
    return base.to_bytes(8, "big") + bytes(builder)[8:]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "t-0" / f"{5:020d}.log"
    path.parent.mkdir()
    path.write_bytes(sealed(5, [b"a", b"b"]) + sealed(7, [b"c"], 2000) + sealed(8, [b"d", b"e"], 1500))
    return path


def test_whole_file(log: Path) -> None:
    scan = scan_segment(log, 5)
    assert scan.problem is None and not scan.zero_tail and scan.valid_end == log.stat().st_size
    assert [(b.base_offset, b.last_offset, b.count) for b in scan.batches] == [(5, 6, 2), (7, 7, 1), (8, 9, 2)]
    assert [b.max_timestamp_ms for b in scan.batches] == [1001, 2000, 1501]
    assert scan.batches[-1] == scan.batches[2] and scan.next_offset == 10
    assert scan.batches[0].to_dict()["codec"] == 0


def test_start_in_the_middle(log: Path) -> None:
    second = scan_segment(log, 5).batches[1]
    scan = scan_segment(log, 5, start=second.position)
    assert scan.problem is None and [b.base_offset for b in scan.batches] == [7, 8]
    assert len(scan_segment(log, 5, end=second.position).batches) == 1


def test_empty_and_zero_files(tmp_path: Path) -> None:
    path = tmp_path / "f.log"
    path.write_bytes(b"")
    assert scan_segment(path, 0).problem is None
    path.write_bytes(bytes(10_000))
    scan = scan_segment(path, 0)
    assert scan.problem is None and scan.zero_tail and scan.valid_end == 0


def test_zero_tail(log: Path) -> None:
    size = log.stat().st_size
    with open(log, "ab") as file:
        file.truncate(size + 5000)
    scan = scan_segment(log, 5)
    assert scan.zero_tail and scan.problem is None and scan.valid_end == size


def test_cut_at_every_byte(log: Path) -> None:
    data = log.read_bytes()
    ends = [0] + [b.end_position for b in scan_segment(log, 5).batches]
    for size in range(len(data)):
        log.write_bytes(data[:size])
        scan = scan_segment(log, 5)
        assert scan.valid_end == max(end for end in ends if end <= size)
        assert (scan.problem is None) == (size in ends or scan.zero_tail)
        assert not scan.good_data_after


def test_every_byte_flipped(log: Path) -> None:
    data = log.read_bytes()
    batches = list(scan_segment(log, 5).batches)
    for position in range(len(data)):
        holder = next(b for b in batches if position < b.end_position)
        if position - holder.position in LEADER_EPOCH:
            continue
        damaged = bytearray(data)
        damaged[position] ^= 0x11
        log.write_bytes(damaged)
        scan = scan_segment(log, 5)
        assert isinstance(scan.problem, CorruptionError) and scan.problem.position == holder.position == scan.valid_end
        assert scan.good_data_after == (holder.position != batches[-1].position)


def test_random_bytes(tmp_path: Path) -> None:
    chance = random.Random(7)
    path = tmp_path / "f.log"
    for size in (1, 11, 12, 16, 17, 60, 61, 62, 5000):
        for _ in range(20):
            path.write_bytes(chance.randbytes(size))
            scan = scan_segment(path, 0)
            assert scan.problem is not None and len(scan.batches) == 0


def test_gap_is_a_problem_unless_allowed(log: Path) -> None:
    with open(log, "ab") as file:
        file.write(sealed(20, [b"x"]))
    assert scan_segment(log, 5).problem is not None
    assert scan_segment(log, 5, dense=False).problem is None


@pytest.mark.parametrize("codec", range(5))
def test_dump_records(log: Path, codec: int) -> None:
    log.write_bytes(log.read_bytes() + sealed(10, [b"f", b"g"], 3000, codec))
    records = list(iter_records(log))
    assert [r.offset for r in records] == list(range(5, 12))
    assert b"".join(r.value or b"" for r in records) == b"abcdefg"
    assert records[-1].topic == "t" and records[-1].headers == [("h", b"1"), ("n", None)]
    last = list(iter_batches(log))[-1]
    assert last.codec == codec and [r.value for r in iter_records(log, last)] == [b"f", b"g"]


def test_dump_raises_after_the_good_batches(log: Path) -> None:
    log.write_bytes(log.read_bytes()[:-1])
    batches = iter_batches(log)
    assert [next(batches).base_offset for _ in range(2)] == [5, 7]
    with pytest.raises(CorruptionError):
        next(batches)
