"""Whatever is given to any call, what comes out is a typed error, and nothing half done."""

from __future__ import annotations

import datetime
import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock

VALUES: list[Any] = [
    None, 0, -1, 2**70, 1.5, math.nan, math.inf, True, "", "text", "ä" * 200, "\ud800", b"", b"x", [], [1], [None],
    [("a", b"b")], [("a",)], {"a": 5}, {5: b"x"}, (), ("a", "b"), [b"x", "y"], object(), str,
    datetime.datetime(2020, 1, 1, tzinfo=None), set(), "a.b.c", "0.0.1", Exception,
]  # fmt: skip
GOOD: dict[str, Any] = {
    "value": b"v", "values": [b"a"], "entries": [{"value": b"x"}], "receipt_handle": "0.0.1",
    "receipt_handles": ["0.0.1"], "messages": [], "wait": 0, "name": "new", "topic": "t", "group": "g", "target": "q",
    "cron": "0 0 * * *", "body": b"b", "visibility_timeout": 5, "attempt_id": "a", "seconds": 5.0, "handler": str,
}  # fmt: skip
QUEUE = (
    "send", "send_many", "send_batch", "receive", "receive_attempt", "delete", "ack", "ack_many", "delete_batch",
    "change_visibility", "change_visibility_batch", "peek", "purge", "redrive", "worker",
)  # fmt: skip
EXCHANGE = ("bind", "unbind", "publish", "publish_many", "routes")
BROKER = (
    "queue", "share_consumer", "exchange", "delete_queue", "delete_exchange", "delete_share_group", "share_groups",
    "delete_schedule", "schedule",
)  # fmt: skip


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", fsync="never", maintenance_interval_ms=10**9) as broker:
        broker.create_topic("t")
        broker.queue("q")
        yield broker


def slow(name: str, argument: str, value: Any) -> bool:
    """Whether a call would be allowed to take its time."""
    if argument == "wait":
        return value is None or (isinstance(value, (int, float)) and value > 0.5)
    return argument == "rate" and isinstance(value, (int, float))


def misuse(thing: Any, names: tuple[str, ...]) -> list[str]:
    """Call methods with each value for each argument; what came out that is no typed error."""
    wrong = []
    for name in names:
        method = getattr(thing, name)
        arguments = inspect.signature(method).parameters.values()
        needed = {
            one.name: GOOD.get(one.name, "q")
            for one in arguments
            if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
        }
        if "wait" in inspect.signature(method).parameters:
            needed["wait"] = 0
        for one in arguments:
            for value in VALUES if one.kind is one.POSITIONAL_OR_KEYWORD else ():
                if slow(name, one.name, value):
                    continue
                try:
                    method(**{**needed, one.name: value})
                except (penstock.PenstockError, ImportError):
                    continue
                except Exception as error:
                    wrong.append(f"{name}({one.name}={value!r}): {error!r}")
    return wrong


@pytest.mark.parametrize(
    "options",
    [{}, {"fifo": True}, {"max_length": 3, "content_based_deduplication": True}, {"fair": True, "delay": 0.1}],
    ids=repr,
)
def test_queues(broker: penstock.Broker, options: dict[str, Any]) -> None:
    queue = broker.queue("other", **options)
    assert misuse(queue, QUEUE) == []
    sent = queue.stats().sent
    queue.send(b"still works", group_id="g", delay=0)
    assert queue.stats().sent == sent + 1


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers", "consistent-hash"])
def test_exchanges(broker: penstock.Broker, kind: str) -> None:
    assert misuse(broker.exchange("e", type=kind), EXCHANGE) == []
    assert misuse(broker.exchange(""), EXCHANGE) == []


def test_brokers(broker: penstock.Broker) -> None:
    assert misuse(broker, BROKER) == []


def test_configurations(broker: penstock.Broker) -> None:
    for name in penstock.QueueConfig.__dataclass_fields__:
        for value in VALUES:
            for make in (
                lambda value=value, name=name: broker.queue("other", **{name: value}),
                lambda value=value, name=name: broker.share_consumer("t", "g", **{name: value}).close(),
            ):
                try:
                    make()
                except penstock.PenstockError as error:
                    assert name in str(error) or "name" in str(error)


def test_what_was_closed_or_deleted(broker: penstock.Broker) -> None:
    gone, closed = broker.queue("gone"), broker.queue("closed")
    shared = broker.share_consumer("t", "g")
    broker.topic("t").append(b"x")
    gone.send(b"x")
    (held,) = gone.receive(wait=0)
    broker.delete_queue("gone")
    closed.close()
    broker.delete_topic("t")
    for thing in (gone, closed, shared):
        names = tuple(name for name in (*QUEUE, "stats", "sync", "wakeup") if hasattr(thing, name))
        assert misuse(thing, names) == []
        for name in ("stats", "receive"):
            with pytest.raises(penstock.PenstockError):
                getattr(thing, name)()
    for settle in (held.nack, held.reject, lambda: held.extend(5.0)):
        try:
            settle()
        except penstock.PenstockError:
            continue


def test_after_the_broker_was_closed(broker: penstock.Broker) -> None:
    queue, exchange = broker.queue("q"), broker.exchange("e", type="topic")
    exchange.bind(queue, "#")
    exchange.publish(b"x", "k")
    broker.close()
    assert misuse(queue, QUEUE) + misuse(exchange, EXCHANGE) + misuse(broker, BROKER) == []
    for call in (queue.stats, queue.receive, exchange.bindings, exchange.delete, broker.schedules, broker.queues):
        with pytest.raises(penstock.ClosedError):
            call()
    for call in (lambda: exchange.publish(b"x", "k"), lambda: queue.send(b"x")):
        with pytest.raises(penstock.ClosedError):
            call()
