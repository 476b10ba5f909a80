"""Several processes and threads on one directory, forks, and topics that change in another process."""

from __future__ import annotations

import os
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from children import FORKSERVER

import penstock


def append_from_process(path: Path, tag: int, count: int) -> None:
    with penstock.open(path) as broker:
        topic = broker.topic("t")
        for n in range(count):
            topic.append(b"%d/%d/" % (tag, n) + b"x" * (n % 500), partition=0)


def change_topics(path: Path, change: str) -> None:
    with penstock.open(path) as broker:
        if change == "create":
            broker.create_topic("new").append(b"from another process")
        elif change == "delete":
            broker.delete_topic("t")
        elif change == "recreate":
            broker.delete_topic("t")
            broker.create_topic("t").append(b"second life")
        else:
            broker.alter_topic("t", partitions=3, max_message_bytes=10)


def elsewhere(target: Callable[..., None], *arguments: object) -> None:
    process = FORKSERVER.Process(target=target, args=arguments)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    process.close()


def in_fork(action: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_four_processes_and_eight_threads(tmp_path, read):
    with penstock.open(tmp_path) as broker:
        topic = broker.create_topic("t", segment_bytes=1 << 20)
        processes = [FORKSERVER.Process(target=append_from_process, args=(tmp_path, tag, 2000)) for tag in range(4)]

        def work(tag: int) -> None:
            for n in range(1000):
                topic.append(b"%d/%d/" % (tag, n) + b"x" * (n % 500), partition=0)

        threads = [threading.Thread(target=work, args=(100 + tag,)) for tag in range(8)]
        for worker in [*processes, *threads]:
            worker.start()
        for worker in [*processes, *threads]:
            worker.join()
        assert [process.exitcode for process in processes] == [0] * 4
        for process in processes:
            process.close()
        records = read(broker)
        assert [offset for offset, _ in records] == list(range(16_000))
        following: Counter[bytes] = Counter()
        for _, value in records:
            tag, n, filling = value.split(b"/")
            assert int(n) == following[tag], "lost, repeated or out of order"
            assert filling == b"x" * (int(n) % 500)
            following[tag] += 1
        assert len(following) == 12
    assert penstock.verify(tmp_path).ok


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(tmp_path, read):
    with penstock.open(tmp_path) as broker:
        topic = broker.create_topic("t")
        topic.append(b"before")
        producer = broker.producer(linger_ms=600_000)
        producer.send("t", b"buffered by the parent")

        def child() -> None:
            assert topic.append(b"child 1").offset == 1
            assert producer.buffered_records == 0
            producer.send("t", b"child 2")
            producer.close()
            with broker.consumer("t") as consumer:
                values = [record.value for record in consumer.poll(timeout=5.0)]
            assert values == [b"before", b"child 1", b"child 2"], values
            broker.create_topic("of-the-child")
            broker.close()

        in_fork(child)
        assert broker.topics() == ["of-the-child", "t"]
        topic.append(b"parent")
        producer.close()
        values = [value for _, value in read(broker)]
        assert values == [b"before", b"child 1", b"child 2", b"parent", b"buffered by the parent"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_keeps_the_directory_open(tmp_path):
    """The child is a live broker of its own: it works after the parent's was closed, and repair is refused."""
    broker = penstock.open(tmp_path)
    topic = broker.create_topic("t")
    topic.append(b"0")
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.read(go_read, 1)
            with pytest.raises(penstock.LockedError):
                penstock.repair(tmp_path)
            os._exit(0 if topic.append(b"1").offset == 1 else 2)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    broker.close()
    os.write(go_write, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(go_read)
    os.close(go_write)
    with penstock.open(tmp_path) as again:
        assert again.topic("t").append(b"2").offset == 2


def test_created_elsewhere(tmp_path, read):
    with penstock.open(tmp_path) as broker:
        assert broker.topics() == []
        elsewhere(change_topics, tmp_path, "create")
        assert broker.topics() == ["new"]
        assert read(broker, "new") == [(0, b"from another process")]


def test_altered_elsewhere(tmp_path):
    with penstock.open(tmp_path) as broker:
        topic = broker.create_topic("t")
        topic.append(b"a value of more than ten bytes")
        producer = broker.producer()
        elsewhere(change_topics, tmp_path, "alter")
        assert topic.partitions == 3
        assert topic.append(b"v", partition=2).offset == 0
        for call in (lambda: topic.append(b"v" * 11), lambda: producer.send("t", b"v" * 11)):
            with pytest.raises(penstock.RecordTooLargeError):
                call()


def test_deleted_elsewhere(tmp_path):
    with penstock.open(tmp_path) as broker:
        topic = broker.create_topic("t")
        topic.append(b"v")
        log = topic.log(0)
        elsewhere(change_topics, tmp_path, "delete")
        assert log.deleted
        for call in (lambda: topic.append(b"v"), topic.describe, lambda: broker.topic("t")):
            with pytest.raises(penstock.UnknownTopicError):
                call()
        with broker.producer() as producer, pytest.raises(penstock.UnknownTopicError):
            producer.send("t", b"v")
        assert broker.topics() == []


def test_made_again_elsewhere(tmp_path, read):
    with penstock.open(tmp_path) as broker:
        topic = broker.create_topic("t")
        for _ in range(5):
            topic.append(b"first life")
        elsewhere(change_topics, tmp_path, "recreate")
        assert topic.append(b"here").offset == 1
        assert read(broker) == [(0, b"second life"), (1, b"here")]
