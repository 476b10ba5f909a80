"""Opening after power cuts and damage: the decision table of `penstock.storage.recovery`, row by row."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import penstock
import penstock.streams.broker as broker_module

LOG = "t-0/00000000000000000000.log"
INDEX = "t-0/00000000000000000000.index"
TIME_INDEX = "t-0/00000000000000000000.timeindex"
CONTROL = "t-0/penstock.control"


@pytest.fixture
def reboot(monkeypatch):
    def change() -> None:
        monkeypatch.setattr(broker_module, "boot_id", lambda: "00000000-0000-0000-0000-" + os.urandom(6).hex())

    return change


def power_cut(path: Path, target: Path, values: list[bytes], **config) -> Path:
    """A copy of the directory as it was while a broker had it open and nothing was synced."""
    with penstock.open(path, fsync="never") as broker:
        topic = broker.create_topic("t", **config)
        for value in values:
            topic.append(value)
        shutil.copytree(path, target)
    return target


def data_end(log: Path) -> int:
    """Where the data ends in a preallocated log."""
    return len(log.read_bytes().rstrip(b"\0"))


VALUES = [b"value-%d-end" % n for n in range(6)]


def test_cut_at_every_byte_of_the_last_batch(tmp_path, reboot, read_directory):
    reboot()
    torn = power_cut(tmp_path / "live", tmp_path / "cut", VALUES, segment_bytes=1 << 20)
    log = (torn / LOG).read_bytes()
    # every batch has the same size here; the last ends in a header count of zero, which rstrip would take away
    size = 12 + int.from_bytes(log[8:12], "big")
    start, end = 5 * size, 6 * size
    assert not any(log[end:])
    control = (torn / CONTROL).read_bytes()
    for length in range(start, end + 1):
        for padding in (0, len(log) - length):  # the file is cut there, or its pages after that were not written
            reboot()
            (torn / LOG).write_bytes(log[:length] + bytes(padding))
            (torn / CONTROL).write_bytes(control)
            records = read_directory(torn)
            whole = 6 if (not any(log[length:end]) and padding) or length == end else 5
            assert records == list(enumerate(VALUES[:whole])), (length, padding)
    reboot()
    with penstock.open(torn) as broker:
        assert broker.topic("t").append(b"next").offset == 6


def test_cut_in_a_middle_segment(tmp_path, reboot, read_directory):
    values = [bytes([n]) * 400_000 for n in range(9)]
    torn = power_cut(tmp_path / "live", tmp_path / "cut", values, segment_bytes=1 << 20)
    os.truncate(torn / "t-0/00000000000000000004.log", 500_000)  # holds 4 and half of 5; 6 and 8 begin more
    reboot()
    assert read_directory(torn) == list(enumerate(values[:5]))
    assert penstock.verify(torn).ok


def test_power_cut_after_sync_loses_nothing(tmp_path, reboot, read_directory):
    with penstock.open(tmp_path / "live", fsync="always") as broker:
        topic = broker.create_topic("t", segment_bytes=1 << 20)
        for n in range(6):
            topic.append(bytes([n]) * 400_000)
        shutil.copytree(tmp_path / "live", tmp_path / "cut")
    reboot()
    assert [value[0] for _, value in read_directory(tmp_path / "cut")] == list(range(6))


def test_clean_close_and_reboot(tmp_path, reboot, read_directory):
    power_cut(tmp_path / "live", tmp_path / "cut", VALUES)
    with penstock.open(tmp_path / "live") as broker:
        broker.topic("t").append(b"synced")
    reboot()
    assert read_directory(tmp_path / "live") == list(enumerate([*VALUES, b"synced"]))


@pytest.mark.parametrize("content", [None, b"", b"\0" * 4096, b"garbage" * 600, b"x"])
def test_lost_control_file(tmp_path, content, read_directory):
    torn = power_cut(tmp_path / "live", tmp_path / "cut", VALUES)
    (torn / CONTROL).unlink()
    if content is not None:
        (torn / CONTROL).write_bytes(content)
    assert read_directory(torn) == list(enumerate(VALUES))


@pytest.mark.parametrize("booted", [False, True])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "stale"])
def test_damaged_indexes(tmp_path, reboot, damage, booted, read_directory):
    values = [b"%d:" % n + b"v" * 3000 for n in range(200)]
    path = tmp_path / "live"
    with penstock.open(path) as broker:
        topic = broker.create_topic("t")
        for n, value in enumerate(values):
            topic.append(value, timestamp_ms=1000 + n)
            if n == 100:
                shutil.copytree(path, tmp_path / "old")
    for name in (INDEX, TIME_INDEX):
        file = path / name
        whole = file.read_bytes()
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes({"empty": b"", "cut": whole[:21], "stale": (tmp_path / "old" / name).read_bytes()}[damage])
    if booted:
        reboot()
    with penstock.open(path) as broker:
        topic = broker.topic("t")
        assert topic.log(0).offset_for_timestamp(1150) == (150, 1150)
        place = penstock.TopicPartition("t", 0)
        with broker.consumer("t") as consumer:
            for offset in (199, 0, 101, 150):
                consumer.seek(place, offset)
                assert consumer.poll(max_records=1)[0].value == values[offset]
    assert read_directory(path) == list(enumerate(values))


def test_all_files_of_zero_length(tmp_path, reboot):
    torn = power_cut(tmp_path / "live", tmp_path / "cut", VALUES)
    for name in (LOG, INDEX, TIME_INDEX, CONTROL):
        os.truncate(torn / name, 0)
    reboot()
    with penstock.open(torn) as broker:
        assert broker.topic("t").log(0).log_end_offset == 0
        assert broker.topic("t").append(b"v").offset == 0


def test_foreign_files_are_left_alone(tmp_path, reboot, read_directory):
    torn = power_cut(tmp_path / "live", tmp_path / "cut", VALUES)
    names = ["notes.txt", "t-0/notes.txt", "t-0/1.log", "t-0/0000000000000000000x.log", "t-0/leader-epoch-checkpoint"]
    for name in names:
        (torn / name).write_bytes(b"mine")
    (torn / "u-0").mkdir()
    (torn / "u-0" / "00000000000000000000.log").write_bytes(b"mine")
    reboot()
    assert read_directory(torn) == list(enumerate(VALUES))
    with penstock.open(torn) as broker:
        broker.maintain()
        assert broker.topics() == ["t"]
    assert all((torn / name).read_bytes() == b"mine" for name in names)


@pytest.mark.parametrize("length", [0, 100, 200])
def test_log_shorter_than_published(tmp_path, length, read_directory):
    torn = power_cut(tmp_path / "live", tmp_path / "cut", VALUES)
    os.truncate(torn / LOG, length)
    with penstock.open(torn) as broker, pytest.raises(penstock.CorruptionError, match="repair") as caught:
        broker.topic("t").log(0)
    assert caught.value.path.endswith(LOG)
    assert not penstock.verify(torn).ok
    report = penstock.repair(torn)
    assert report.ok, report
    records = read_directory(torn)
    assert records == list(enumerate(VALUES[: len(records)]))
    assert len(records) < 6
    with penstock.open(torn) as broker:
        assert broker.topic("t").append(b"next").offset == len(records)


@pytest.mark.parametrize("place", [
    8, 16, 17, 21, 23, 27, 43, 57, 61, 70, 78,
])  # fmt: skip
def test_bit_flips_are_found(tmp_path, place):
    path = tmp_path / "data"
    with penstock.open(path) as broker:
        topic = broker.create_topic("t")
        for value in VALUES:
            topic.append(value)
    data = bytearray((path / LOG).read_bytes())
    size = 12 + int.from_bytes(data[8:12], "big")
    data[2 * size + place] ^= 0x04
    (path / LOG).write_bytes(data)
    got: list[bytes] = []
    with penstock.open(path) as broker, broker.consumer("t") as consumer:
        with pytest.raises(penstock.CorruptionError) as caught:
            while len(got) < 6:
                got += [record.value for record in consumer.poll(max_records=1, timeout=1.0)]
        assert consumer.position(penstock.TopicPartition("t", 0)) == 2
    assert got == VALUES[:2]
    assert caught.value.path.endswith(LOG)
    assert 2 * size <= caught.value.position < 3 * size
    assert penstock.repair(path).ok
    with penstock.open(path) as broker, broker.consumer("t") as consumer:
        got = [record.value for record in consumer.poll(timeout=1.0)]
        assert got[:2] == VALUES[:2]
        assert set(got) <= set(VALUES)


@pytest.mark.parametrize("version", ["2", "99", "0", "x", ""])
def test_newer_format(tmp_path, version):
    (tmp_path / "meta.properties").write_text(f"penstock.format={version}\n")
    with pytest.raises(penstock.FormatVersionError, match=r"meta\.properties"):
        penstock.open(tmp_path)


def test_not_a_directory(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file, file / "below"):
        with pytest.raises(penstock.DataDirectoryError):
            penstock.open(path)
    with pytest.raises(penstock.InvalidTypeError):
        penstock.open(5)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_directory(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(penstock.DataDirectoryError, match="not writable"):
        penstock.open(tmp_path)


def test_partition_directory_is_missing(tmp_path):
    with penstock.open(tmp_path) as broker:
        broker.create_topic("t")
    shutil.rmtree(tmp_path / "t-0")
    with penstock.open(tmp_path) as broker, pytest.raises(penstock.CorruptionError):
        broker.topic("t").append(b"v")


@pytest.mark.parametrize("flip", [1, 4])
def test_flipped_base_offset_is_found(tmp_path, flip):
    """The checksum does not cover it; its neighbours tell (docs/promises.md)."""
    path = tmp_path / "data"
    with penstock.open(path) as broker:
        topic = broker.create_topic("t")
        for value in VALUES:
            topic.append(value)
    data = bytearray((path / LOG).read_bytes())
    data[2 * (12 + int.from_bytes(data[8:12], "big")) + 7] ^= flip
    (path / LOG).write_bytes(data)
    with penstock.open(path) as broker, broker.consumer("t") as consumer, pytest.raises(penstock.CorruptionError):
        for _ in range(3):
            consumer.poll(max_records=1, timeout=0.1)
