"""Batches written here are read by kafka-python and aiokafka, and theirs are read here."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import DefaultRecordBatch as AioReader
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AioWriter
from kafka.record import MemoryRecords, MemoryRecordsBuilder
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

WRITERS = {"kafka-python": DefaultRecordBatchBuilder, "aiokafka": AioWriter}
CODECS = range(5)
RECORDS = [
    (b"first" * 40, b"key", [("h", b"v"), ("none", None), ("grün", b"")], 1_700_000_000_000),
    (None, b"", [], 1_699_999_999_000),
    (b"", None, [("h", b"again")], 1_700_000_100_000),
    (bytes(range(256)) * 500, None, [], 1_700_000_000_001),
]


def fields(record):
    return record.value, record.key, list(record.headers), record.timestamp


@pytest.mark.parametrize("codec", CODECS)
def test_kafka_python_reads_ours(seal, codec):
    data = seal(RECORDS, codec, 50) + seal(RECORDS, codec, 54)
    memory = MemoryRecords(data)
    read, offsets = [], []
    while (batch := memory.next_batch()) is not None:
        assert batch.validate_crc()
        for record in batch:
            read.append(fields(record))
            offsets.append(record.offset)
    assert read == RECORDS * 2
    assert offsets == list(range(50, 58))


@pytest.mark.parametrize("codec", CODECS)
def test_aiokafka_reads_ours(seal, codec):
    batch = AioReader(seal(RECORDS, codec, 50))
    assert batch.validate_crc()
    assert [(*fields(record), record.offset) for record in batch] == [(*r, 50 + i) for i, r in enumerate(RECORDS)]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("writer", WRITERS)
def test_theirs_are_read_here(parse, writer, codec):
    builder = WRITERS[writer](
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 20,
    )  # fmt: skip
    for offset, (value, key, headers, timestamp_ms) in enumerate(RECORDS):
        builder.append(offset, timestamp_ms, key, value, headers)
    read = parse(bytes(builder.build()))
    assert [(r.value, r.key, r.headers, r.timestamp_ms) for r in read] == RECORDS


@pytest.mark.parametrize("codec", CODECS)
def test_memory_records_of_kafka_python(parse, codec):
    builder = MemoryRecordsBuilder(2, codec, 1 << 20)
    for value, key, headers, timestamp_ms in RECORDS:
        builder.append(timestamp_ms, key, value, headers)
    builder.close()
    read = parse(bytes(builder.buffer()))
    assert [(r.value, r.key, r.headers, r.timestamp_ms) for r in read] == RECORDS


def test_header_fields_as_they_see_them(given, seal):
    batch = DefaultRecordBatch(seal([given(b"a")], 0, 9, producer_id=5, producer_epoch=6, base_sequence=7))
    assert (batch.base_offset, batch.magic, batch.timestamp_type, batch.is_transactional, batch.is_control_batch) == (
        9,
        2,
        0,
        False,
        False,
    )
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (5, 6, 7)


def test_log_append_time_as_they_see_it(given, seal):
    batch = DefaultRecordBatch(seal([given(b"a", timestamp_ms=5), given(b"b", timestamp_ms=9)], log_append_time=True))
    assert batch.timestamp_type == 1
    assert [r.timestamp for r in batch] == [9, 9]
