"""Transactional batches and markers, read by kafka-python; the aborted index, by its documented layout."""

from __future__ import annotations

import struct

import pytest

import penstock

records = pytest.importorskip("kafka.record.memory_records")


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
