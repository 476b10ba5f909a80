"""Transactional batches and markers, read by kafka-python and aiokafka; the aborted index, by its documented layout."""

from __future__ import annotations

import struct

import pytest

import penstock

records = pytest.importorskip("kafka.record.memory_records")
aio = pytest.importorskip("aiokafka.record.memory_records")
aio_control = pytest.importorskip("aiokafka.record.control_record")


def test_markers_and_attributes(broker: penstock.Broker) -> None:
    broker.create_topic("out")
    with broker.producer(transactional_id="t") as producer:
        for ending in (producer.commit_transaction, producer.abort_transaction):
            producer.begin_transaction()
            producer.send("out", b"value", key=b"key")
            producer.flush()
            ending()
        producer_id = producer.producer_id
    log = broker.topic("out").log(0)
    region = log.fetch(0, 1 << 20)
    assert region is not None
    batches = records.MemoryRecords(bytes(region))
    found = []
    while batches.has_next():
        batch = batches.next_batch()
        assert batch.validate_crc() and batch.is_transactional and batch.producer_id == producer_id
        found += [(batch.is_control_batch, record.key, record.value) for record in batch]
    commit, abort = struct.pack(">hh", 0, 1), struct.pack(">hh", 0, 0)
    end = struct.pack(">hi", 0, 0)
    data = (False, b"key", b"value")
    assert found == [data, (True, commit, end), data, (True, abort, end)]
    (index,) = log.directory.glob("*.txnindex")
    assert struct.unpack(">hqqqq", index.read_bytes()) == (0, producer_id, 2, 3, 2)


def test_what_a_client_needs_to_leave_out_aborted_records(broker: penstock.Broker) -> None:
    """Two producers at once: aiokafka finds whose marker ends what, and the batches are numbered without a gap."""
    broker.create_topic("out")
    with broker.producer(transactional_id="a") as one, broker.producer(transactional_id="b") as two:
        for turn in range(4):
            for producer, name in ((one, b"one"), (two, b"two")):
                producer.begin_transaction()
                producer.send_many("out", [b"%s-%d" % (name, turn)] * 3)
                producer.flush()
            (two.commit_transaction if turn % 2 else two.abort_transaction)()
            one.commit_transaction()
        ids = {one.producer_id: b"one", two.producer_id: b"two"}
    log = broker.topic("out").log(0)
    region = log.fetch(0, 1 << 20)
    assert region is not None
    batches = aio.MemoryRecords(bytes(region))
    waiting: dict[int, list[bytes]] = {number: [] for number in ids}
    sequences = dict.fromkeys(ids, 0)
    epochs = {entry.producer_id: entry.epoch for entry in broker.transactions()}
    kept: list[bytes] = []
    while batches.has_next():
        batch = batches.next_batch()
        assert batch.validate_crc() and batch.is_transactional and batch.producer_epoch == epochs[batch.producer_id]
        if batch.is_control_batch:
            (record,) = batch
            ended = waiting[batch.producer_id]
            if aio_control.ControlRecord.parse(record.key) == aio_control.COMMIT_MARKER:
                kept += ended
            else:
                assert aio_control.ControlRecord.parse(record.key) == aio_control.ABORT_MARKER
            ended.clear()
        else:
            assert batch.base_sequence == sequences[batch.producer_id]
            values = [record.value for record in batch]
            assert all(value.startswith(ids[batch.producer_id]) for value in values)
            sequences[batch.producer_id] += len(values)
            waiting[batch.producer_id] += values
    assert not any(waiting.values())
    with broker.consumer("out", isolation_level="read_committed") as consumer:
        seen = [record.value for record in consumer.poll(timeout=0)]
    assert sorted(seen) == sorted(kept)
    assert kept == [
        value
        for turn in range(4)
        for name in ([b"two", b"one"] if turn % 2 else [b"one"])
        for value in [b"%s-%d" % (name, turn)] * 3
    ]
