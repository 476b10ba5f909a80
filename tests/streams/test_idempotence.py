"""Numbered batches (KIP-98): what is tried again is stored once, what is missing or outdated is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from children import Child

import penstock
from penstock._native.builder import BatchBuilder

DAY_MS = 24 * 3600 * 1000


def batch(sequence: int, count: int = 2, producer_id: int = 7, epoch: int = 0, timestamp_ms: int = 9) -> BatchBuilder:
    """A sealed batch as a producer numbers it."""
    builder = BatchBuilder(256)
    for n in range(count):
        builder.append(b"%d" % (sequence + n), None, None, timestamp_ms)
    builder.seal(0, False, producer_id, epoch, sequence)
    return builder


@pytest.fixture
def log(broker: penstock.Broker):
    """The only partition of a topic."""
    return broker.create_topic("t").log(0)


def test_the_last_five_batches_are_stored_once(log) -> None:
    offsets = [log.append(batch(2 * n)) for n in range(6)]
    assert offsets == [0, 2, 4, 6, 8, 10]
    for n in range(1, 6):
        assert log.append(batch(2 * n)) == 2 * n
    with pytest.raises(penstock.OutOfOrderSequenceError, match=r"begins at sequence 0.*expects 12"):
        log.append(batch(0))
    assert log.log_end_offset == 12
    assert log.append(batch(12)) == 12


def test_a_batch_of_another_size_is_no_repetition(log) -> None:
    log.append(batch(0))
    with pytest.raises(penstock.OutOfOrderSequenceError):
        log.append(batch(0, count=3))
    assert log.log_end_offset == 2


def test_a_gap_is_refused_and_nothing_is_stored(log) -> None:
    log.append(batch(0))
    with pytest.raises(penstock.OutOfOrderSequenceError, match=r"begins at sequence 4.*expects 2"):
        log.append(batch(4))
    assert log.log_end_offset == 2


def test_epochs(log) -> None:
    log.append(batch(0, epoch=3))
    with pytest.raises(penstock.FencedError, match="epoch 2 of producer 7"):
        log.append(batch(2, epoch=2))
    with pytest.raises(penstock.OutOfOrderSequenceError):
        log.append(batch(6, epoch=4))
    assert log.append(batch(2, epoch=4)) == 2  # goes on, as a named producer
    assert log.append(batch(0, epoch=5)) == 4  # begins again, as a transactional one
    assert log.append(batch(0, epoch=5)) == 4
    with pytest.raises(penstock.FencedError):
        log.append(batch(4, epoch=4))


def test_sequences_wrap(log) -> None:
    top = 2**31 - 1
    log.append(batch(top - 2))  # a producer that is not known may go on anywhere
    assert log.append(batch(top)) == 2  # top and 0
    assert log.append(batch(top)) == 2
    assert log.append(batch(1)) == 4


def test_unnumbered_batches_in_between_change_nothing(log) -> None:
    plain = BatchBuilder(256)
    plain.append(b"plain", None, None, 1000)
    plain.seal()
    assert log.append(batch(0)) == 0
    assert log.append(plain) == 2
    assert log.append(batch(0)) == 0
    assert log.append(batch(2)) == 3


def test_a_producer_is_forgotten_after_a_day(log) -> None:
    log.append(batch(0, timestamp_ms=9))
    assert log.append(batch(0, timestamp_ms=9 + DAY_MS)) == 0
    assert log.append(batch(50, timestamp_ms=10 + DAY_MS)) == 2


def test_the_newest_producers_are_remembered(log) -> None:
    stored = {number: log.append(batch(0, producer_id=number)) for number in range(400)}
    assert [log.append(batch(0, producer_id=number)) for number in range(385, 400)] == [
        stored[number] for number in range(385, 400)
    ]
    assert log.log_end_offset == 800
    assert log.append(batch(0, producer_id=0)) == 800  # forgotten long ago


def test_segments_roll_in_between(log) -> None:
    offsets = []
    for n in range(8):
        offsets.append(log.append(batch(2 * n)))
        log.roll_active()
    assert [log.append(batch(2 * n)) for n in range(3, 8)] == offsets[3:]
    log.delete_before(16)
    assert log.append(batch(14)) == offsets[7]


CHILD = """
import os, signal, sys
sys.path.insert(0, {here!r})
import penstock
from test_idempotence import batch
log = penstock.open({path!r}).topic("t").log(0)
for n in range(3):
    log.append(batch(2 * n))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("meanwhile_open", [True, False])
def test_a_killed_process_leaves_what_it_knew(tmp_path: Path, meanwhile_open: bool) -> None:
    path = tmp_path / "data"
    broker = penstock.open(path)
    broker.create_topic("t")
    if not meanwhile_open:
        broker.close()
    code = CHILD.format(here=str(Path(__file__).parent), path=str(path))
    assert Child(code).wait(60) == -signal.SIGKILL
    if not meanwhile_open:
        broker = penstock.open(path)
    log = broker.topic("t").log(0)
    assert [log.append(batch(2 * n)) for n in range(4)] == [0, 2, 4, 6]
    assert log.last_sequence(7) == 7
    broker.close()


def test_a_producer_goes_on_when_its_topic_is_altered(broker: penstock.Broker) -> None:
    broker.create_topic("t")
    with broker.producer() as producer:
        for turn in range(4):
            producer.send_many("t", [b"%d" % turn] * 10, partition=0)
            producer.flush()
            broker.alter_topic("t", retention_ms=10**9 + turn)
    values = [record.value for record in broker.consumer("t").poll(max_records=100)]
    assert values == [b"%d" % turn for turn in range(4) for _ in range(10)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_is_a_producer_of_its_own(broker: penstock.Broker) -> None:
    broker.create_topic("t")
    producer = broker.producer()
    producer.send("t", b"before")
    producer.flush()
    child = os.fork()
    if child == 0:
        producer.send("t", b"child")
        producer.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    producer.send("t", b"parent")
    producer.close()
    assert sorted(record.value for record in broker.consumer("t").poll(max_records=10)) == [
        b"before",
        b"child",
        b"parent",
    ]
