"""Operations of queues, share groups and exchanges, timed by pytest-benchmark."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from bench.conftest import RECORDS
from bench.values import texts

TAKEN = 1000


@pytest.fixture
def queue(broker: penstock.Broker) -> penstock.Queue:
    """An empty queue of which settled messages go."""
    return broker.queue("q", retention=None)


def test_send_many_receive_ack_many(benchmark: Any, queue: penstock.Queue) -> None:
    values = texts(RECORDS)

    def action() -> int:
        queue.send_many(values)
        seen = 0
        while seen < RECORDS:
            messages = queue.receive(TAKEN, wait=0)
            queue.ack_many(messages)
            seen += len(messages)
        return seen

    assert benchmark(action) == RECORDS


@pytest.mark.parametrize("how", ["ack", "delete", "nack", "extend"])
def test_one_message(benchmark: Any, queue: penstock.Queue, how: str) -> None:
    """Sent, received, settled."""

    def action() -> None:
        queue.send(b"v" * 100)
        (message,) = queue.receive(1, wait=0)
        if how == "delete":
            queue.delete(message.receipt_handle)
        elif how == "nack":
            message.nack(failed=False)
            queue.receive(1, wait=0)[0].ack()
        else:
            if how == "extend":
                message.extend(60)
            message.ack()

    benchmark(action)


@pytest.mark.parametrize("what", ["delay", "priority", "group_id"])
def test_send_with(benchmark: Any, broker: penstock.Broker, what: str) -> None:
    queue = broker.queue("q", retention=None, fifo=what == "group_id", max_priority=3 * (what == "priority"))
    options: dict[str, Any] = {"delay": {"delay": 60.0}, "priority": {"priority": 2}, "group_id": {"group_id": "g"}}
    benchmark(lambda: queue.send(b"v" * 100, **options[what]))


def test_share_group_over_a_topic(benchmark: Any, broker: penstock.Broker) -> None:
    append, shared = broker.topic("t").append, broker.share_consumer("t", group="workers")

    def action() -> None:
        append(b"v" * 100)
        shared.receive(1, wait=0)[0].ack()

    benchmark(action)


@pytest.mark.parametrize("state", ["ready", "in_flight"])
def test_peek(benchmark: Any, queue: penstock.Queue, state: str) -> None:
    queue.send_many(texts(1000))
    if state == "in_flight":
        queue.receive(1000, wait=0)
    assert benchmark(lambda: queue.peek(state))


def test_stats(benchmark: Any, queue: penstock.Queue) -> None:
    queue.send_many(texts(1000))
    benchmark(queue.stats)


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
def test_publish(benchmark: Any, broker: penstock.Broker, kind: str) -> None:
    exchange = broker.exchange("e", type=kind)
    arguments = {"region": "eu"} if kind == "headers" else None
    exchange.bind(broker.queue("q", retention=None), "order.eu.created", arguments=arguments)
    headers = [("region", b"eu")] if kind == "headers" else None
    benchmark(lambda: exchange.publish(b"v" * 100, routing_key="order.eu.created", headers=headers))
