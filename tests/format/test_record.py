"""`Record` and `RecordMetadata` as values."""

import pickle

from penstock._native.records import Record, RecordMetadata


def test_record():
    record = Record("orders", 3, 7, 1_000, b"k", None, [("h", b"v"), ("n", None)])
    assert (record.topic, record.partition, record.offset, record.timestamp_ms) == ("orders", 3, 7, 1_000)
    assert (record.key, record.value, record.headers) == (b"k", None, [("h", b"v"), ("n", None)])
    assert pickle.loads(pickle.dumps(record)) == record and hash(record) == hash(pickle.loads(pickle.dumps(record)))
    assert record != Record("orders", 3, 8, 1_000, b"k", None, record.headers)
    assert record != (1, 2)
    assert eval(repr(record)) == record


def test_headers_are_a_new_list():
    record = Record("orders", 3, 7, 1_000, None, b"v")
    record.headers.append(("h", b"v"))
    assert record.headers == []


def test_metadata():
    metadata = RecordMetadata("orders", 3, 7, 1_000)
    assert (metadata.topic, metadata.partition, metadata.offset, metadata.timestamp_ms) == ("orders", 3, 7, 1_000)
    assert pickle.loads(pickle.dumps(metadata)) == metadata != RecordMetadata("orders", 3, 8, 1_000)
    assert eval(repr(metadata)) == metadata
