"""When a message was first received, over every way of coming back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import penstock
from penstock import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def broker(tmp_path: Path, clock: VirtualClock) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", fsync="never", clock=clock, maintenance_interval_ms=10**9) as broker:
        yield broker


def one(queue: penstock.Queue, visibility_timeout: float | None = None) -> penstock.Message:
    (message,) = queue.receive(1, wait=0, visibility_timeout=visibility_timeout)
    return message


def late(message: penstock.Message) -> None:
    message.extend(50.0)


WAYS: dict[str, Callable[[penstock.Message], None]] = {
    "timed out": lambda message: None,
    "failed": lambda message: message.nack(),
    "failed, with a delay": lambda message: message.nack(delay=20.0),
    "given back": lambda message: message.nack(failed=False),
    "extended, then timed out": late,
    "extended by its handle": lambda message: message.queue.change_visibility(message.receipt_handle, 50.0),
    "made visible": lambda message: message.extend(0),
}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("visibility_timeout", [None, 7.0])
@pytest.mark.parametrize("fifo", [False, True])
def test_it_is_kept(
    broker: penstock.Broker, clock: VirtualClock, way: str, visibility_timeout: float | None, fifo: bool
) -> None:
    queue = broker.queue("q", fifo=fifo, max_receives=None)
    queue.send(b"x", group_id="g")
    clock.advance(1)
    first_ms = clock.time_ms()
    for count in (1, 2, 3):
        message = one(queue, visibility_timeout)
        assert (message.first_received_ms, message.delivery_count) == (first_ms, count)
        attributes = message.attributes
        assert attributes["ApproximateFirstReceiveTimestamp"] == str(first_ms)
        assert attributes["SentTimestamp"] == str(first_ms - 1000)
        assert attributes["ApproximateReceiveCount"] == str(count) and attributes["MessageGroupId"] == "g"
        WAYS[way](message)
        clock.advance(60)
    assert [message.first_received_ms for message in queue.peek()] == [first_ms]


def test_of_what_was_never_received(broker: penstock.Broker) -> None:
    queue = broker.queue("q")
    queue.send(b"x", deduplication_id="d")
    (message,) = queue.peek()
    assert message.first_received_ms is None
    assert message.attributes == {
        "SentTimestamp": str(message.timestamp_ms),
        "ApproximateReceiveCount": "0",
        "MessageDeduplicationId": "d",
        "SequenceNumber": f"{0:020d}",
    }


def test_of_what_was_dead_and_got_another_try(broker: penstock.Broker, clock: VirtualClock) -> None:
    queue = broker.queue("q")
    queue.send(b"x")
    first_ms = clock.time_ms()
    one(queue).reject()
    clock.advance(5)
    queue.redrive()
    assert one(queue).first_received_ms == first_ms


def test_messages_that_never_come_back_take_no_room(broker: penstock.Broker) -> None:
    queue = broker.queue("q")
    queue.send_many([b"%d" % number for number in range(100)])
    queue.ack_many(queue.receive(100, wait=0))
    assert not list((broker.path / "q-0" / "share-q").glob("*.firsts"))
    queue.send(b"x")
    one(queue).nack()
    assert len(list((broker.path / "q-0" / "share-q").glob("*.firsts"))) == 1


def test_another_process_knows_it(broker: penstock.Broker, clock: VirtualClock) -> None:
    queue = broker.queue("q")
    queue.send(b"x")
    first_ms = clock.time_ms()
    one(queue).nack()
    clock.advance(5)
    with penstock.open(broker.path, fsync="never", clock=clock, maintenance_interval_ms=10**9) as other:
        assert one(other.queue("q")).first_received_ms == first_ms
