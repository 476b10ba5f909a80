"""What is counted is what happened: by threads, by processes, and after some of them were killed."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import FORKSERVER

import penstock
from penstock._native import metrics as native
from penstock.storage.metrics_store import MetricsStore


def counters(broker: penstock.Broker, kind: int, topic: str, group: str = "") -> dict[str, int]:
    """The counters of a topic (or share group, or consumer group), summed over its partitions."""
    assert broker._metrics_store is not None
    file = broker._metrics_store.file
    words = np.frombuffer(file.read(), np.int64).reshape(-1, native.SLOT_WORDS)
    slots = [slot for slot, *name in file.names(1, file.used) if (name[0], name[1], name[3]) == (kind, topic, group)]
    return {name: int(words[slots, word].sum()) for name, word in native.WORDS[kind].items()}


def test_appends_of_every_way(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", partitions=3, compression_type="lz4")
    for number in range(100):
        topic.append(b"x" * 10, key=str(number).encode())
    with broker.producer() as producer:
        producer.send_many("t", [b"text " * 20] * 5_000)
    found = counters(broker, native.PARTITION, "t")
    assert found["records_in"] == 5_100
    assert found["bytes_in"] == sum(partition.size_bytes for partition in topic.describe().partitions)
    assert 100 < found["batches_in"] < 200
    assert found["saved_bytes"] > 10 * found["bytes_in"], "the text is repetitive"
    assert found["syncs"] == 0
    broker.sync()
    assert counters(broker, native.PARTITION, "t")["syncs"] >= 1


@pytest.mark.parametrize("way", ["poll", "batches", "iteration", "mixed"])
def test_delivered_records(broker: penstock.Broker, way: str) -> None:
    broker.create_topic("t", partitions=2)
    with broker.producer(batch_size=4096) as producer:
        producer.send_many("t", [b"v" * 50] * 3_000)
    with broker.consumer("t") as consumer:
        read = 0
        while read < 3_000:
            if way == "poll" or (way == "mixed" and read < 700):
                read += len(consumer.poll(max_records=77))
            elif way == "batches":
                read += sum(batch.count for batch in consumer.poll_batches())
            else:
                next(consumer)
                read += 1
    assert read == 3_000
    assert counters(broker, native.PARTITION, "t")["records_out"] == 3_000


def test_what_is_read_twice_counts_twice(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t")
    for _ in range(10):
        topic.append(b"v")
    with broker.consumer("t") as consumer:
        place = penstock.TopicPartition("t", 0)
        consumer.poll(max_records=4)
        consumer.seek(place, 2)
        assert len(consumer.poll(max_records=100)) == 8
        consumer.seek(place, 9)
        next(consumer)
    assert counters(broker, native.PARTITION, "t")["records_out"] == 4 + 8 + 1


def test_threads(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t")

    def work() -> None:
        for _ in range(500):
            topic.append(b"v")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters(broker, native.PARTITION, "t")["records_in"] == 2_000


def _append(path: str, count: int) -> None:
    with penstock.open(path, fsync="never") as broker:
        topic = broker.topic("t")
        for _ in range(count):
            topic.append(b"v" * 20)


def _append_for_ever(path: str, ready: Any) -> None:
    topic = penstock.open(path, fsync="never").topic("t")
    while True:
        topic.append(b"v" * 20)
        ready.set()


def test_processes(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with penstock.open(path, fsync="never") as broker:
        broker.create_topic("t")
        workers = [FORKSERVER.Process(target=_append, args=(str(path), 400)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert counters(broker, native.PARTITION, "t")["records_in"] == 800


def test_killed_writers(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with penstock.open(path, fsync="never") as broker:
        topic = broker.create_topic("t")
        for _ in range(3):
            ready = FORKSERVER.Event()
            worker = FORKSERVER.Process(target=_append_for_ever, args=(str(path), ready))
            worker.start()
            assert ready.wait(60)
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.join()
        topic.append(b"v" * 20)  # whoever comes next counts what a dead one left uncounted
        found = counters(broker, native.PARTITION, "t")
        assert found["records_in"] == found["seen_end"] == topic.log(0).log_end_offset
        assert found["bytes_in"] == topic.log(0).size_bytes()


def test_a_batch_that_its_dead_writer_did_not_count(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t")
    topic.append(b"v" * 20)
    assert broker._metrics_store is not None
    with penstock.open(broker.path, metrics=False) as uncounted:
        uncounted.topic("t").append(b"v" * 20)
    assert counters(broker, native.PARTITION, "t")["records_in"] == 1
    topic.append(b"v" * 20)
    found = counters(broker, native.PARTITION, "t")
    assert found["records_in"] == found["batches_in"] == 3
    assert found["bytes_in"] == topic.log(0).size_bytes()


def test_queue(broker: penstock.Broker) -> None:
    queue = broker.queue("q", max_receives=2)
    queue.send_many([b"m"] * 20)
    messages = queue.receive(10)
    assert len(messages) == 10
    queue.ack_many(messages[:4])
    messages[4].ack()
    messages[5].nack()
    messages[6].nack(failed=False)
    messages[7].reject()
    messages[8].extend(60)
    messages[9].extend(0)
    again = [message for message in queue.receive(10) if message.delivery_count == 2]
    assert len(again) == 3
    again[0].nack()  # its second failure: dead
    with pytest.raises(penstock.StaleReceiptError):
        messages[6].ack()
    found = counters(broker, native.SHARE, "q", "q")
    assert found["received"] == 20
    assert found["receives"] == 2
    assert found["redelivered"] == 3
    assert (found["negative"], found["released"], found["extended"]) == (1, 2, 1)
    assert found["dead"] == 2
    assert found["stale"] == 1


def test_expired_messages_and_locks(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        queue = broker.queue("q", visibility_timeout=10)
        queue.send(b"1")
        queue.send(b"2", ttl=15)
        assert len(queue.receive(2, wait=0)) == 2
        clock.advance(11)
        assert len(queue.receive(2, wait=0)) == 2
        clock.advance(11)
        assert len(queue.receive(2, wait=0)) == 1
        found = counters(broker, native.SHARE, "q", "q")
        assert found["timed_out"] == 4
        assert found["expired"] == 1


def test_commits_of_a_group(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t")
    for _ in range(3):
        topic.append(b"v")
    with broker.consumer("t", group="g", enable_auto_commit=False) as consumer:
        consumer.poll(max_records=1)
        consumer.commit()
        consumer.commit()  # nothing new: no commit
        record = consumer.poll(max_records=1)[0]
        consumer.commit(record)
    assert counters(broker, native.GROUP, "", "g")["commits"] == 2


def test_errors_by_kind(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t", max_message_bytes=1000)
    topic.append(b"v")
    with pytest.raises(penstock.RecordTooLargeError):
        topic.append(b"v" * 2000)
    with broker.consumer(auto_offset_reset="none") as consumer:
        place = penstock.TopicPartition("t", 0)
        consumer.assign([place])
        consumer.seek(place, 99)
        with pytest.raises(penstock.OffsetOutOfRangeError):
            consumer.poll(timeout=0)
    found = counters(broker, native.PARTITION, "t")
    assert found["too_large"] == 1
    assert found["out_of_range"] == 1


def test_a_topic_that_is_made_again_begins_at_zero(broker: penstock.Broker) -> None:
    broker.create_topic("t").append(b"v")
    broker.delete_topic("t")
    assert counters(broker, native.PARTITION, "t")["records_in"] == 0
    broker.create_topic("t").append(b"v")
    assert counters(broker, native.PARTITION, "t")["records_in"] == 1


def test_slots_are_used_again_after_a_while(tmp_path: Path) -> None:
    store = MetricsStore(tmp_path)
    first = store.group("a", 0)
    assert first is not None
    store.retire(1_000, group="a")
    soon = store.group("b", 2_000)
    late = store.group("c", 1_000_000)
    assert soon is not None and late is not None
    assert soon.number != first.number == late.number
    assert MetricsStore(tmp_path).group("b", 0).number == soon.number  # type: ignore[union-attr]


def test_counters_outlive_every_process(tmp_path: Path) -> None:
    for total in (1, 2, 3):
        with penstock.open(tmp_path / "data") as broker:
            if total == 1:
                broker.create_topic("t")
            broker.topic("t").append(b"v")
            assert counters(broker, native.PARTITION, "t")["records_in"] == total


def test_not_counting(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data", metrics=False) as broker:
        broker.create_topic("t").append(b"v")
        queue = broker.queue("q")
        queue.send(b"m")
        queue.receive()[0].ack()
        assert broker._metrics_store is None
    assert not (tmp_path / "data" / "metrics").exists()


def _drain(path: str) -> None:
    with penstock.open(path, fsync="never") as broker:
        queue = broker.queue("q")
        while messages := queue.receive(7, wait=0):
            given_back = [message for message in messages[:1] if message.delivery_count == 1]
            for message in given_back:
                message.nack(failed=False)
            queue.ack_many([message for message in messages if message not in given_back])
        with broker.consumer("t") as consumer:
            while consumer.poll(max_records=33, timeout=0):
                pass


def _receive_and_hang(path: str, ready: Any) -> None:
    queue = penstock.open(path, fsync="never").queue("q")
    queue.receive(5)
    ready.set()
    while True:
        signal.pause()


def test_receivers_and_readers_in_processes(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with penstock.open(path, fsync="never") as broker:
        broker.create_topic("t")
        with broker.producer() as producer:
            producer.send_many("t", [b"v"] * 1_000)
        queue = broker.queue("q", visibility_timeout=1_000)
        queue.send_many([b"m"] * 300)
        ready = FORKSERVER.Event()
        victim = FORKSERVER.Process(target=_receive_and_hang, args=(str(path), ready))
        victim.start()
        assert ready.wait(60)
        os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join()
        workers = [FORKSERVER.Process(target=_drain, args=(str(path),)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        found = counters(broker, native.SHARE, "q", "q")
        stats = queue.stats()
        assert found["received"] == stats.received
        assert stats.acknowledged == 295 and stats.in_flight == 5, "what the dead one has is still its own"
        assert found["received"] == 300 + found["released"]
        assert found["redelivered"] == found["released"]
        assert counters(broker, native.PARTITION, "t")["records_out"] == 2_000


def test_the_file_of_counters_is_no_stranger(broker: penstock.Broker) -> None:
    broker.create_topic("t").append(b"v")
    assert (broker.path / "metrics").exists()
    broker.close()
    assert penstock.verify(broker.path).problems == []
