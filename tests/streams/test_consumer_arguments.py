"""Bad input and misuse: a typed error at the call, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.errors import ClosedError, InvalidArgumentError, InvalidTypeError, UnknownTopicError
from penstock.streams.broker import Broker
from penstock.streams.consumer import Consumer
from penstock.streams.topic_partition import TopicPartition

ZERO, ONE, NONE = TopicPartition("orders", 0), TopicPartition("orders", 1), TopicPartition("missing", 0)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with penstock.open(tmp_path / "data", fsync="never") as opened:
        opened.create_topic("orders", partitions=2)
        yield opened


@pytest.fixture
def consumer(broker: Broker) -> Iterator[Consumer]:
    with broker.consumer() as opened:
        opened.assign([ZERO])
        opened.seek(ZERO, 0)
        yield opened


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (InvalidTypeError, {"fetch_max_bytes": 1.5}),
        (InvalidTypeError, {"fetch_max_bytes": True}),
        (InvalidArgumentError, {"fetch_max_bytes": 0}),
        (InvalidTypeError, {"max_poll_records": "5"}),
        (InvalidArgumentError, {"max_poll_records": -1}),
        (TypeError, {"unheard_of": 1}),
    ],
)
def test_bad_options(broker: Broker, error: type[Exception], options: dict[str, Any]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        broker.consumer("orders", **options)


def test_bad_topics(broker: Broker) -> None:
    with pytest.raises(UnknownTopicError, match="missing"):
        broker.consumer("orders", "missing")
    bad_topics: list[Any] = [["orders"], None, b"orders"]
    for bad in bad_topics:
        with pytest.raises(InvalidTypeError, match="topic"):
            broker.consumer(bad)


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (InvalidArgumentError, lambda c: c.seek(ZERO, -1)),
        (InvalidArgumentError, lambda c: c.seek(ZERO, 2**63)),
        (InvalidTypeError, lambda c: c.seek(ZERO, 1.0)),
        (InvalidTypeError, lambda c: c.seek(ZERO, True)),
        (InvalidTypeError, lambda c: c.seek("orders", 1)),
        (InvalidTypeError, lambda c: c.seek(("orders", "0"), 1)),
        (InvalidArgumentError, lambda c: c.seek(("orders", -1), 1)),
        (InvalidArgumentError, lambda c: c.seek(ONE, 1)),
        (UnknownTopicError, lambda c: c.seek(NONE, 1)),
        (UnknownTopicError, lambda c: c.position(TopicPartition("orders", 7))),
        (InvalidArgumentError, lambda c: c.pause(ONE)),
        (InvalidArgumentError, lambda c: c.seek_to_end(ONE)),
        (InvalidArgumentError, lambda c: c.seek_to_timestamp(ZERO, -1)),
        (InvalidTypeError, lambda c: c.seek_to_timestamp(ZERO, "now")),
        (InvalidTypeError, lambda c: c.offsets_for_times([ZERO])),
        (InvalidTypeError, lambda c: c.offsets_for_times({ZERO: None})),
        (UnknownTopicError, lambda c: c.offsets_for_times({NONE: 1})),
        (UnknownTopicError, lambda c: c.end_offsets([NONE])),
        (InvalidTypeError, lambda c: c.beginning_offsets(["orders"])),
        (InvalidTypeError, lambda c: c.end_offsets(ZERO)),
        (InvalidTypeError, lambda c: c.assign("orders")),
        (InvalidTypeError, lambda c: c.assign(ZERO)),
        (InvalidTypeError, lambda c: c.assign(None)),
        (InvalidTypeError, lambda c: c.assign(["orders"])),
        (UnknownTopicError, lambda c: c.assign([NONE])),
        (InvalidArgumentError, lambda c: c.poll(max_records=0, timeout=0)),
        (InvalidTypeError, lambda c: c.poll(max_records=1.5, timeout=0)),
        (InvalidArgumentError, lambda c: c.poll(timeout=-0.1)),
        (InvalidArgumentError, lambda c: c.poll(timeout=float("nan"))),
        (InvalidTypeError, lambda c: c.poll(timeout="1")),
        (InvalidTypeError, lambda c: c.poll_batches(timeout=True)),
        (InvalidArgumentError, lambda c: c.poll_batches(timeout=0, max_bytes=0)),
        (InvalidTypeError, lambda c: c.poll_batches(timeout=0, max_bytes="1")),
    ],
)
def test_bad_arguments(consumer: Consumer, error: type[Exception], call: Callable[[Any], Any]) -> None:
    with pytest.raises(error):
        call(consumer)
    assert consumer.position(ZERO) == 0
    assert consumer.assignment() == {ZERO}
    assert consumer.poll(timeout=0) == []


def test_huge_numbers_are_not_errors(consumer: Consumer) -> None:
    assert consumer.poll(max_records=2**100, timeout=0) == []
    assert consumer.poll_batches(timeout=0, max_bytes=2**100) == []


def test_nothing_assigned_is_an_error_instead_of_waiting_for_ever(broker: Broker) -> None:
    with broker.consumer() as consumer:
        with pytest.raises(InvalidArgumentError, match="assign"):
            consumer.poll(timeout=None)
        with pytest.raises(InvalidArgumentError, match="assign"):
            next(consumer)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.poll(timeout=0),
        lambda c: c.poll_batches(timeout=0),
        lambda c: iter(c),
        lambda c: c.assign([ZERO]),
        lambda c: c.assignment(),
        lambda c: c.seek(ZERO, 0),
        lambda c: c.position(ZERO),
        lambda c: c.lag(),
        lambda c: c.pause(),
        lambda c: c.end_offsets([ZERO]),
        lambda c: c.__enter__(),
    ],
)
def test_a_closed_consumer_refuses(consumer: Consumer, call: Callable[[Consumer], Any]) -> None:
    consumer.close()
    consumer.close()
    assert consumer.closed
    with pytest.raises(ClosedError):
        call(consumer)
    with pytest.raises(StopIteration):
        next(consumer)


def test_closing_the_broker_closes_the_consumer(tmp_path: Path) -> None:
    broker = penstock.open(tmp_path / "other", fsync="never")
    broker.create_topic("orders")
    consumer = broker.consumer("orders")
    broker.close()
    assert consumer.closed
    consumer.close()


def test_repr_names_the_partitions(consumer: Consumer) -> None:
    assert repr(consumer) == "<penstock.Consumer orders-0>"
