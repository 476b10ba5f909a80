"""Index entries by Kafka's rules, written whole and read back."""

from __future__ import annotations

from pathlib import Path

from penstock._native.builder import BatchBuilder
from penstock.storage.index_file import index_batches, read_index, read_time_index, rebuild_indexes
from penstock.storage.segment_scan import scan_segment


def write_log(path: Path, base: int, timestamps_ms: list[int], value_bytes: int) -> None:
    with open(path, "wb") as file:
        for place, timestamp_ms in enumerate(timestamps_ms):
            builder = BatchBuilder()
            builder.append(b"v" * value_bytes, None, None, timestamp_ms)
            builder.append(b"", None, None, timestamp_ms - 1)
            builder.seal()
            file.write((base + 2 * place).to_bytes(8, "big") + bytes(builder)[8:])


def test_entries(tmp_path: Path) -> None:
    log = tmp_path / f"{100:020d}.log"
    write_log(log, 100, [10, 30, 20, 20, 40, 35], 2000)  # each batch 2,0xx bytes: more than 4096 only after two
    scan = scan_segment(log, 100)
    sizes = {batch.size_bytes for batch in scan.batches}
    assert len(sizes) == 1 and 2 * sizes.pop() > 4096
    index, times = index_batches(scan.batches)
    assert index == [(105, scan.batches[2].position), (109, scan.batches[4].position)]
    assert times == [(30, 103), (40, 109)]


def test_written_and_read_back(tmp_path: Path) -> None:
    base = 5_000_000_000
    log = tmp_path / f"{base:020d}.log"
    write_log(log, base, list(range(1000, 1060)), 500)
    batches = scan_segment(log, base).batches
    assert rebuild_indexes(log, base, batches) == tuple(len(entries) for entries in index_batches(batches))
    index, times = index_batches(batches)
    assert read_index(log.with_suffix(".index"), base) == index
    assert read_time_index(log.with_suffix(".timeindex"), base) == times
    assert read_index(log.with_suffix(".index"), base, 2) == index[:2]
    raw = log.with_suffix(".index").read_bytes()
    assert raw[:8] == (index[0].offset - base).to_bytes(4, "big") + index[0].position.to_bytes(4, "big")
    raw = log.with_suffix(".timeindex").read_bytes()
    assert raw[:12] == times[0].timestamp_ms.to_bytes(8, "big") + (times[0].offset - base).to_bytes(4, "big")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".index", ".log", ".timeindex"]


def test_empty_log(tmp_path: Path) -> None:
    log = tmp_path / f"{0:020d}.log"
    log.touch()
    assert rebuild_indexes(log, 0, scan_segment(log, 0).batches) == (0, 0)
    assert log.with_suffix(".index").read_bytes() == b"" == log.with_suffix(".timeindex").read_bytes()


def test_a_cut_entry_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    path.write_bytes(bytes(7))
    assert read_index(path, 0) == []
