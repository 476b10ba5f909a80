"""Retention by several threads and readers at once: nobody trips over a file that another one removed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.storage.partition_log import PartitionLog


def test_maintenance_beside_writers_and_readers(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    stop = threading.Event()
    with penstock.open(tmp_path, maintenance_interval_ms=1) as broker:
        topic = broker.create_topic("t", segment_bytes=1 << 20, retention_bytes=2 << 20)

        def read() -> None:
            try:
                with broker.consumer("t") as consumer:
                    while not stop.is_set():
                        consumer.poll(timeout=0.01)
                        topic.log(0).offset_for_timestamp(1)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        with broker.producer() as producer:
            for _ in range(60):
                producer.send_many("t", [b"x" * 1000] * 1000)
        stop.set()
        thread.join()
        assert topic.log(0).log_start_offset > 0
    assert errors == []


@pytest.mark.parametrize("isolation_level", ["read_uncommitted", "read_committed"])
@pytest.mark.parametrize("markers", [True, False])
def test_the_lag_while_the_start_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, markers: bool, isolation_level: str
) -> None:
    with penstock.open(tmp_path) as broker:
        topic = broker.create_topic("t")
        for _ in range(10):
            topic.append(b"v")
        if markers:
            with broker.producer(transactional_id="id") as producer, producer.transaction():
                producer.send("t", b"v")
        end = topic.log(0).log_end_offset
        with broker.consumer("t", group="g", isolation_level=isolation_level) as consumer:
            consumer.poll(max_records=2, timeout=5.0)
            consumer.commit()
            original, removals = PartitionLog.fetch, iter([5, 7])

            def after_a_removal(log: PartitionLog, *arguments: Any) -> Any:
                before = next(removals, None)
                if before is not None:
                    log.delete_before(before)
                return original(log, *arguments)

            monkeypatch.setattr(PartitionLog, "fetch", after_a_removal)
            (partition,) = broker.describe_group("g").partitions
            assert (partition.lag, next(removals, None)) == (end - 7, None)
            if markers:
                removals = iter([8, 9])
                assert consumer.lag() == {penstock.TopicPartition("t", 0): end - 9}


def test_a_topic_that_is_deleted_at_this_moment_is_unknown_and_not_damaged(broker: penstock.Broker) -> None:
    broker.create_topic("t")
    config = broker._topic_config("t")
    broker.delete_topic("t")
    with pytest.raises(penstock.UnknownTopicError):
        broker._open_log("t", 0, config)  # of a thread that still had the configuration
