"""Kafka's own DumpLogSegments reads what was written here, all codecs, and finds no error in logs or indexes."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import penstock
import penstock.storage.compression
from penstock._native.builder import BatchBuilder
from penstock.storage.index_file import rebuild_indexes
from penstock.storage.repair_plan import empty_batch
from penstock.storage.segment_scan import scan_segment

_spec = importlib.util.spec_from_file_location("fetch_kafka", Path(__file__).with_name("fetch_kafka.py"))
assert _spec is not None and _spec.loader is not None
fetch_kafka = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fetch_kafka)

needs_kafka = pytest.mark.skipif(
    shutil.which("java") is None or not fetch_kafka.have_jars(),
    reason="needs java and Kafka's jars: python tests/oracle/fetch_kafka.py",
)
_TROUBLE = re.compile(r"Found invalid|mismatch|Index position|non-consecutive|isvalid: false|Exception|corrupt", re.I)
CODEC_NAMES = ("none", "gzip", "snappy", "lz4", "zstd")


def dump(*arguments: str) -> str:
    """Run DumpLogSegments; its output, stdout and stderr."""
    classes = str(fetch_kafka.jar_directory() / "*")
    command = ["java", "-Xshare:auto", "-cp", classes, "kafka.tools.DumpLogSegments", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def batch(base: int, codec: int, log_append_time: bool) -> bytes:
    """40 records: keys, nulls, headers, values that tell their offset."""
    builder = BatchBuilder()
    for place in range(40):
        value = None if place == 7 else f"value-{base + place}-".encode() + b"x" * 80
        key = None if place % 2 else f"key-{base + place}".encode()
        headers = [("name", b"content"), ("null", None)] if place % 3 == 0 else None
        builder.append(value, key, headers, 1_700_000_000_000 + base + place % 5)
    builder.seal(codec)
    if log_append_time:
        builder.set_log_append_time(1_700_000_009_000 + base)
    return base.to_bytes(8, "big") + bytes(builder)[8:]


def write_segment(directory: Path, base: int) -> tuple[Path, int]:
    """A segment with batches of every codec and some with LogAppendTime; (log, next offset)."""
    data, offset = [], base
    for round_number in range(6):
        for codec in range(5):
            data.append(batch(offset, codec, round_number == 5))
            offset += 40
    log = directory / f"{base:020d}.log"
    log.write_bytes(b"".join(data))
    scan = scan_segment(log, base)
    assert scan.problem is None
    entries, times = rebuild_indexes(log, base, scan.batches)
    assert entries > 3 and times > 3
    return log, offset


@needs_kafka
def test_log_of_every_codec(tmp_path: Path) -> None:
    log, end = write_segment(tmp_path, 100)
    out = dump("--deep-iteration", "--print-data-log", "--files", str(log))
    assert not _TROUBLE.search(out), out
    for name in CODEC_NAMES:
        assert f"compresscodec: {name}" in out
    found = [int(number) for number in re.findall(r"^\|? ?offset: (\d+) ", out, re.M)]
    assert found == list(range(100, end))
    for offset in found:
        place = (offset - 100) % 40
        assert place == 7 or f"payload: value-{offset}-xxx" in out
        assert place % 2 or f"key: key-{offset} " in out
    assert "LogAppendTime: 17000000" in out and "headerKeys: [name,null]" in out


@needs_kafka
def test_the_stand_in_for_lost_offsets(tmp_path: Path) -> None:
    log = tmp_path / f"{0:020d}.log"
    log.write_bytes(batch(0, 0, False) + empty_batch(40, 43, 1_700_000_000_000) + batch(43, 3, False))
    out = dump("--deep-iteration", "--files", str(log))
    remarks = _TROUBLE.findall(out)
    assert remarks == ["Non-consecutive"] and "39 is followed by 43" in out  # as in any compacted log
    assert "lastOffset: 42 count: 0" in out and out.count("isvalid: true") == 3


@needs_kafka
@pytest.mark.parametrize("base", [0, 5_000_000_000])
def test_indexes_are_sane(tmp_path: Path, base: int) -> None:
    log, _ = write_segment(tmp_path, base)
    for suffix in (".index", ".timeindex"):
        path = str(log.with_suffix(suffix))
        for option in ("--index-sanity-check", "--verify-index-only"):
            out = dump(option, "--files", path)
            assert not _TROUBLE.search(out), out
            assert option != "--index-sanity-check" or "passed sanity check" in out


@needs_kafka
def test_the_oracle_notices_damage(tmp_path: Path) -> None:
    log, _ = write_segment(tmp_path, 0)
    index = log.with_suffix(".index")
    data = bytearray(index.read_bytes())
    data[-9] ^= 1
    index.write_bytes(data)
    classes = str(fetch_kafka.jar_directory() / "*")
    command = ["java", "-cp", classes, "kafka.tools.DumpLogSegments", "--verify-index-only", "--files", str(index)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode or _TROUBLE.search(done.stdout + done.stderr)


@pytest.mark.slow
def test_fetching() -> None:
    if shutil.which("mvn") is None:
        pytest.skip("needs mvn")
    fetch_kafka.fetch()
    assert fetch_kafka.have_jars()


def transactions(broker: penstock.Broker) -> int:
    """Ten transactions on a compacted topic, every third aborted, with others' records between; the producer's id."""
    topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=1 << 20, min_cleanable_dirty_ratio=0.0)
    with broker.producer(transactional_id="a") as producer:
        for turn in range(10):
            producer.begin_transaction()
            for place in range(40):
                producer.send("t", f"value-{turn}-{place}".encode() + b"x" * 4000, key=b"%d" % (place % 7))
            producer.flush()
            topic.append(b"plain", key=b"plain")
            (producer.abort_transaction if turn % 3 == 2 else producer.commit_transaction)()
        return producer.producer_id


@needs_kafka
def test_transactions_and_their_index_and_what_compaction_leaves_of_them(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        number = transactions(broker)
        assert len(broker.topic("t").log(0).segments()) > 1
    before = shutil.copytree(tmp_path / "data" / "t-0", tmp_path / "before")
    with penstock.open(tmp_path / "data") as broker:
        broker.compact("t")
        left = []
        with broker.consumer("t") as consumer:
            while records := consumer.poll(timeout=0):
                left += [record.offset for record in records]

    files = [*sorted(before.glob("*.log")), *sorted(before.glob("*.txnindex"))]
    out = dump("--deep-iteration", "--files", ",".join(map(str, files)))
    assert _TROUBLE.findall(out) == []
    assert out.count("isControl: true") == 10 and out.count(f"producerId: {number} producerEpoch: 1 ") >= 20
    assert out.count("endTxnMarker: COMMIT") == 7 and out.count("endTxnMarker: ABORT") == 3
    entries = re.findall(rf"version: 0 producerId: {number} firstOffset: (\d+) lastOffset: (\d+) lastStable", out)
    assert [(int(first), int(last)) for first, last in entries] == [(turn * 42, turn * 42 + 41) for turn in (2, 5, 8)]

    files = [
        *sorted((tmp_path / "data" / "t-0").glob("*.log")),
        *sorted((tmp_path / "data" / "t-0").glob("*.txnindex")),
    ]
    out = dump("--deep-iteration", "--files", ",".join(map(str, files)))
    assert {remark.lower() for remark in _TROUBLE.findall(out)} <= {"non-consecutive"}  # as in any compacted log
    lines = re.findall(r"^\|? ?offset: (\d+) (.*)", out, re.M)
    assert [int(offset) for offset, rest in lines if "endTxnMarker" not in rest] == left
    assert 0 < len(left) < 100
