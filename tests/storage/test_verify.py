"""`verify` names every kind of damage, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import penstock
from penstock.errors import DataDirectoryError, FormatVersionError, UnknownTopicError
from penstock.storage.verify import verify


def log_of(data: Path, base: int, suffix: str = ".log") -> Path:
    return data / "t-0" / f"{base:020d}{suffix}"


def kinds(data: Path) -> list[str]:
    return [problem.kind for problem in verify(data).problems]


def test_whole(data: Path) -> None:
    seen: list[int] = []
    report = verify(data, progress=seen.append)
    assert report.ok and report.problems == []
    assert (report.segments, report.batches, report.records) == (3, 18, 36)
    assert report.size_bytes == sum(path.stat().st_size for path in data.rglob("*.log")) == seen[-1] and len(seen) == 3


def test_every_byte_of_a_segment_flipped(data: Path) -> None:
    log = log_of(data, 30)
    whole = log.read_bytes()
    size = len(whole) // 3
    for position in range(len(whole)):
        if position % size in range(12, 16):  # leader epoch: not covered by the CRC
            continue
        damaged = bytearray(whole)
        damaged[position] ^= 0x22
        log.write_bytes(damaged)
        report = verify(data)
        first = report.problems[0]
        assert not report.ok and (first.path, first.position) == (str(log), position - position % size)
        assert report.records >= 34  # the others are still counted


def test_cut_at_every_byte_of_the_last_batch(data: Path) -> None:
    log = log_of(data, 30)
    whole = log.read_bytes()
    begin = len(whole) // 3 * 2
    for size in range(begin + 8, len(whole)):  # before that only zeros of the offset are left
        log.write_bytes(whole[:size])
        first = verify(data).problems[0]
        assert (first.kind, first.position) == ("batch", begin)


def test_problem_says_what_was_expected(data: Path) -> None:
    log = log_of(data, 0)
    damaged = bytearray(log.read_bytes())
    damaged[70] ^= 1
    log.write_bytes(damaged)
    problem = verify(data).problems[0]
    assert problem.kind == "batch" and "CRC" in problem.message and problem.position == 0
    assert problem.expected.startswith("0x") and problem.got.startswith("0x") and problem.expected != problem.got


def test_missing_segment(data: Path) -> None:
    for suffix in (".log", ".index", ".timeindex"):
        log_of(data, 10, suffix).unlink()
    problem = verify(data).problems[0]
    assert (problem.kind, problem.expected, problem.got) == ("offsets", 10, 30)


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_missing_cut_and_lying_index(data: Path, suffix: str) -> None:
    index = log_of(data, 10, suffix)
    whole = index.read_bytes()
    assert len(whole) >= 24
    index.unlink()
    assert kinds(data) == [suffix[1:]]
    index.write_bytes(b"")
    assert kinds(data) == [suffix[1:]]
    index.write_bytes(whole[:-1])
    assert kinds(data) == [suffix[1:]]
    for position in range(len(whole)):
        index.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert kinds(data) == [suffix[1:]], position
    index.write_bytes(whole)
    assert verify(data).ok


def test_lying_index_with_increasing_garbage(data: Path) -> None:
    log_of(data, 10, ".index").write_bytes(bytes(range(8)) + bytes(range(8, 16)))
    assert kinds(data) == ["index"]


def test_foreign_files_are_named_but_fine(data: Path) -> None:
    (data / "notes.txt").write_text("hello")
    (data / "t-0" / "README").write_text("hello")
    (data / "odd-dir").mkdir()
    report = verify(data)
    assert report.ok
    assert sorted(Path(p.path).name for p in report.problems) == ["README", "notes.txt", "odd-dir"]


def test_preallocated_tail_is_fine_at_the_end_only(data: Path) -> None:
    for suffix in (".log", ".index", ".timeindex"):
        with open(log_of(data, 30, suffix), "ab") as file:
            file.truncate(9000)
    assert verify(data).ok
    with open(log_of(data, 10), "ab") as file:
        file.truncate(30_000)
    assert kinds(data) == ["batch"]


def test_zero_length_files(data: Path) -> None:
    for suffix in (".log", ".index", ".timeindex"):
        log_of(data, 30, suffix).write_bytes(b"")
    report = verify(data)
    assert report.ok and report.records == 30
    log_of(data, 10).write_bytes(b"")
    assert not verify(data).ok


def test_compressed_batch_claiming_more(data: Path, seal: Callable[..., bytes], write: Callable[..., Path]) -> None:
    import crc32c

    for codec in range(1, 5):
        batch = bytearray(seal(0, 3, 1, codec))
        batch[57:61], batch[23:27] = (9).to_bytes(4, "big"), (8).to_bytes(4, "big")
        batch[17:21] = crc32c.crc32c(bytes(batch[21:])).to_bytes(4, "big")
        write(data / "u-0", 0, [bytes(batch)])
        problem = verify(data, "u").problems[0]
        assert problem.kind == "records" and problem.position == 0


def test_arguments(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownTopicError):
        verify(data, "nothing")
    with pytest.raises(DataDirectoryError):
        verify(tmp_path / "absent")
    (data / "meta.properties").write_text("penstock.format=99\n")
    with pytest.raises(FormatVersionError):
        verify(data)


def test_what_every_layer_keeps_is_not_foreign(tmp_path: Path) -> None:
    with penstock.open(tmp_path) as broker:
        queue = broker.queue("jobs", fifo=True, dead_letter="jobs-dead")
        queue.send(b"1")
        queue.receive()
        broker.create_topic("t").append(b"1")
        broker.consumer("t", group="g").poll(timeout=1.0)
        with broker.producer(transactional_id="x") as producer, producer.transaction():
            producer.send("t", b"2")
    assert penstock.verify(tmp_path).problems == []
