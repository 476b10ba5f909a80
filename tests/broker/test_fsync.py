"""What each `fsync` mode forces to the disk, and when."""

from __future__ import annotations

import threading

import pytest

import penstock


def test_always_is_synced_when_append_returns(tmp_path):
    with penstock.open(tmp_path, fsync="always") as broker:
        topic = broker.create_topic("t")
        for n in range(5):
            assert topic.append(b"v").offset == n
            assert topic.log(0).synced_offset == n + 1
        with broker.producer(linger_ms=1000) as producer:
            producer.send_many("t", [b"v"] * 50)
            producer.flush()
            assert topic.log(0).synced_offset == 55


def test_always_across_rolls(tmp_path):
    with penstock.open(tmp_path, fsync="always") as broker:
        topic = broker.create_topic("t", segment_bytes=1 << 20)
        for n in range(6):
            topic.append(b"v" * 400_000)
            assert topic.log(0).synced_offset == n + 1
        assert len(topic.log(0).segments()) == 3


def test_always_with_threads(tmp_path):
    with penstock.open(tmp_path, fsync="always") as broker:
        topic = broker.create_topic("t")
        late: list[int] = []

        def work() -> None:
            for _ in range(20):
                offset = topic.append(b"v").offset
                if topic.log(0).synced_offset <= offset:
                    late.append(offset)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert late == []
        assert topic.log(0).synced_offset == 160


def test_interval_syncs_by_itself(tmp_path, until):
    with penstock.open(tmp_path, fsync="interval", fsync_interval_ms=50) as broker:
        topic = broker.create_topic("t")
        topic.append(b"v")
        until(lambda: topic.log(0).synced_offset == 1)


def test_interval_syncs_on_request_and_on_close(tmp_path):
    with penstock.open(tmp_path, fsync_interval_ms=600_000) as broker:
        topic = broker.create_topic("t")
        topic.append(b"v")
        assert topic.log(0).synced_offset == 0
        broker.sync()
        assert topic.log(0).synced_offset == 1
        topic.append(b"v")
    with penstock.open(tmp_path, fsync="never") as broker:
        assert broker.topic("t").log(0).synced_offset == 2


def test_never_syncs_only_on_request(tmp_path):
    with penstock.open(tmp_path, fsync="never") as broker:
        topic = broker.create_topic("t")
        topic.append(b"v")
        assert topic.log(0).synced_offset == 0
    with penstock.open(tmp_path, fsync="never") as broker:
        log = broker.topic("t").log(0)
        assert (log.log_end_offset, log.synced_offset) == (1, 0)
        log.sync()
        assert log.synced_offset == 1


@pytest.mark.parametrize("options", [
    {"fsync": "sometimes"}, {"fsync": None}, {"fsync_interval_ms": 0}, {"fsync_interval_ms": True},
    {"maintenance_interval_ms": 1.5},
])  # fmt: skip
def test_bad_options(tmp_path, options):
    with pytest.raises(penstock.InvalidConfigError):
        penstock.open(tmp_path, **options)
