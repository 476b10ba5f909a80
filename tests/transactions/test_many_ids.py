"""Transactional ids come and go: what each of them costs, while it is used and afterwards."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import penstock
from penstock._native import mapping

DAY_S = 86_400


def use(broker: penstock.Broker, name: str, value: bytes = b"v") -> None:
    with broker.producer(transactional_id=name) as producer, producer.transaction():
        producer.send("t", value)


def values(broker: penstock.Broker) -> list[bytes | None]:
    with broker.consumer("t", isolation_level="read_committed") as consumer:
        return [record.value for record in iter(lambda: consumer.poll(timeout=0), []) for record in record]


def test_an_id_costs_a_page_and_no_descriptor(broker: penstock.Broker) -> None:
    broker.create_topic("t")
    use(broker, "first")
    gc.collect()
    before = mapping.live_mappings(), mapping.live_descriptors()
    for number in range(200):
        use(broker, f"id-{number}", b"%d" % number)
    broker._transactions.resolve()
    gc.collect()
    assert (mapping.live_mappings(), mapping.live_descriptors()) == before
    files = list((broker.path / "transactions").iterdir())
    assert len(files) == 201 and {path.stat().st_blocks * 512 for path in files} == {4096}
    assert len(broker.transactions()) == 201
    assert values(broker) == [b"v", *(b"%d" % number for number in range(200))]


def test_many_open_at_once_leave_a_short_table(broker: penstock.Broker) -> None:
    topic = broker.create_topic("t")
    producers = [broker.producer(transactional_id=f"id-{number}") for number in range(100)]
    for producer in producers:
        producer.begin_transaction()
        producer.send("t", b"v")
        producer.flush()
    table = topic.log(0)._open_transactions
    assert table is not None and table.get(0) == 100
    for producer in producers:
        producer.commit_transaction()
        producer.close()
    assert table.get(0) == 0
    assert len(values(broker)) == 100


def test_a_transaction_over_many_partitions_and_groups(broker: penstock.Broker) -> None:
    partitions = 600  # more than fit in the first page of its record
    broker.create_topic("t", partitions=partitions)
    source = broker.create_topic("source", partitions=100)
    for number in range(100):
        source.append(b"x", partition=number)
    consumer = broker.consumer("source", group="g")
    consumer.poll(timeout=0)
    with broker.producer(transactional_id="x") as producer:
        with pytest.raises(ZeroDivisionError), producer.transaction():
            for number in range(partitions):
                producer.send("t", b"aborted", partition=number)
            producer.flush()
            raise ZeroDivisionError
        with producer.transaction():
            for number in range(partitions):
                producer.send("t", b"%d" % number, partition=number)
            producer.send_offsets(consumer)
    assert sorted(values(broker), key=lambda value: int(value or -1)) == [b"%d" % n for n in range(partitions)]
    assert broker.describe_group("g").lag == 0
    consumer.close()


def test_ids_that_nobody_used_for_a_week_are_forgotten(tmp_path: Path) -> None:
    clock = penstock.VirtualClock()
    with penstock.open(tmp_path, clock=clock, maintenance_interval_ms=10**9) as broker:
        broker.create_topic("t")
        use(broker, "idle")
        held = broker.producer(transactional_id="held")
        clock.advance(6 * DAY_S)
        use(broker, "used")
        clock.advance(2 * DAY_S)
        broker.maintain()
        assert [found.transactional_id for found in broker.transactions()] == ["held", "used"]
        use(broker, "idle")  # begins anew
        with held.transaction():
            held.send("t", b"still there")
        assert len(values(broker)) == 4


def test_what_a_killed_process_left_open_is_aborted_and_its_ids_let_go(tmp_path: Path) -> None:
    with penstock.open(tmp_path) as broker:
        broker.create_topic("t")
        child = os.fork()
        if child == 0:
            for number in range(20):
                producer = broker.producer(transactional_id=f"id-{number}")
                producer.begin_transaction()
                producer.send("t", b"lost")
                producer.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        use(broker, "mine")
        broker._transactions.resolve()
        assert values(broker) == [b"v"]
        assert broker._groups.rows("SELECT * FROM transactional") == []


def _in_child(action: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def test_a_fork_inside_a_transaction(tmp_path: Path) -> None:
    with penstock.open(tmp_path) as broker:
        broker.create_topic("t")
        with broker.producer(transactional_id="x") as producer, producer.transaction():
            producer.send("t", b"before")
            producer.flush()

            def in_child() -> None:
                for call in (producer.commit_transaction, producer.abort_transaction):
                    with pytest.raises(penstock.TransactionStateError):
                        call()
                with pytest.raises(penstock.FencedError):
                    producer.begin_transaction()
                use(broker, "of the child", b"child")
                broker.close()

            assert _in_child(in_child) == 0
            producer.send("t", b"after")
        assert sorted(value or b"" for value in values(broker)) == [b"after", b"before", b"child"]


def test_forks_while_other_threads_commit(tmp_path: Path) -> None:
    with penstock.open(tmp_path) as broker:
        broker.create_topic("t", partitions=4)
        stop = threading.Event()
        committed = [0, 0, 0]

        def work(number: int) -> None:
            with broker.producer(transactional_id=f"thread-{number}") as producer:
                while not stop.is_set():
                    with producer.transaction():
                        producer.send("t", b"thread", partition=number)
                    broker.reset_offsets(f"g{number}", "t", "latest")  # through SQLite
                    committed[number] += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()

        def in_child() -> None:
            with broker.producer(transactional_id="child") as producer, producer.transaction():
                producer.send("t", b"child", partition=3)
            broker.reset_offsets("child", "t", "latest")

        states = [_in_child(in_child) for _ in range(15)]
        stop.set()
        for thread in threads:
            thread.join()
        assert states == [0] * 15
        found = values(broker)
        assert (found.count(b"thread"), found.count(b"child")) == (sum(committed), 15)
