"""A full disk is an error, never a crash: on a real file system of 8 MiB."""

from __future__ import annotations

import pytest

import penstock
from penstock.storage.directory import exclusive

VALUE = b"v" * 100_000


def append_until_full(topic: penstock.Topic, value: bytes, least: int = 0) -> int:
    stored = least
    with pytest.raises(penstock.DiskFullError) as caught:
        while stored < 10_000:
            assert topic.append(value).offset == stored
            stored += 1
    assert caught.value.retriable
    return stored


@pytest.mark.parametrize("segment_bytes", [1 << 20, 1 << 26], ids=["rolling", "one-segment"])
@pytest.mark.parametrize("fsync", ["never", "always"])
def test_append(small_disk, fill, read, read_directory, segment_bytes, fsync):
    with penstock.open(small_disk, fsync=fsync) as broker:
        topic = broker.create_topic("t", segment_bytes=segment_bytes)
        ballast = fill(small_disk, 4 << 20)
        stored = append_until_full(topic, VALUE)
        assert stored > 15
        for _ in range(3):
            with pytest.raises(penstock.DiskFullError):
                topic.append(VALUE)
        assert read(broker) == [(n, VALUE) for n in range(stored)]
        ballast.unlink()
        for n in range(10):
            assert topic.append(VALUE).offset == stored + n
        assert read(broker) == [(n, VALUE) for n in range(stored + 10)]
    assert len(read_directory(small_disk)) == stored + 10
    assert penstock.verify(small_disk).ok


def test_roll(small_disk, fill, read):
    """No room for the files of the next segment: the one before stays active, and whole."""
    with penstock.open(small_disk) as broker:
        topic = broker.create_topic("t", segment_bytes=1 << 20)
        for n in range(10):
            assert topic.append(VALUE).offset == n
        ballast = fill(small_disk)
        stored = append_until_full(topic, VALUE, 10)
        with pytest.raises(penstock.DiskFullError):
            topic.append(VALUE)
        assert read(broker) == [(n, VALUE) for n in range(stored)]
        ballast.unlink()
        for n in range(15):
            assert topic.append(VALUE).offset == stored + n
        assert len(topic.log(0).segments()) > 1
    assert penstock.verify(small_disk).ok


def test_retention_makes_room(small_disk):
    with penstock.open(small_disk) as broker:
        topic = broker.create_topic("t", segment_bytes=1 << 20)
        stored = append_until_full(topic, VALUE)
        broker.delete_records(penstock.TopicPartition("t", 0), stored)
        assert topic.append(VALUE).offset == stored


def test_producer_keeps_its_records(small_disk, fill, read):
    values = [b"%d:" % n + VALUE for n in range(12)]
    with penstock.open(small_disk) as broker:
        broker.create_topic("t", segment_bytes=1 << 20)
        ballast = fill(small_disk)
        with broker.producer(linger_ms=60_000, batch_size=1 << 22) as producer:
            assert producer.send_many("t", values) == 12
            for _ in range(2):
                with pytest.raises(penstock.DiskFullError):
                    producer.flush()
            assert producer.buffered_records > 0
            ballast.unlink()
            producer.flush()
            assert producer.buffered_records == 0
        assert read(broker) == list(enumerate(values))


def test_creating_topics(small_disk, fill):
    with penstock.open(small_disk) as broker:
        broker.create_topic("before")
        ballast = fill(small_disk)
        with pytest.raises(penstock.DiskFullError):
            for n in range(1000):
                broker.create_topic(f"t{n}").append(b"v")
        assert broker.topics()[0] == "before"
        ballast.unlink()
        assert broker.create_topic("after").append(b"v").offset == 0


def test_open_on_a_full_disk(small_disk, fill):
    ballast = fill(small_disk)
    with pytest.raises(penstock.DiskFullError):
        penstock.open(small_disk / "data")
    ballast.unlink()
    with penstock.open(small_disk / "data") as broker:
        broker.create_topic("t")


def test_open_a_directory_again_with_little_room(small_disk, fill, read):
    """With room for some of its files, it fails as a whole, and holds nothing; with room for all, it opens."""
    path = small_disk / "data"
    with penstock.open(path) as broker:
        broker.create_topic("t", segment_bytes=1 << 20).append(b"v")
        broker.queue("q")
    opened = []
    for left in range(0, 140_000, 8192):
        ballast = fill(small_disk, left)
        try:
            penstock.open(path).close()
            opened.append(left)
        except penstock.DiskFullError:
            with exclusive(path):  # which needs that nobody has it open
                pass
        assert not list(path.glob("*.tmp"))
        ballast.unlink()
        with penstock.open(path) as broker:
            assert read(broker) == [(0, b"v")]
    assert opened and 0 not in opened
    assert penstock.verify(path).ok
