"""Log records carry what they are about as fields."""

from __future__ import annotations

import logging
import threading

import pytest

import penstock
from penstock.queues.log_fields import message_fields

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_the_fields_of_a_message(broker: penstock.Broker) -> None:
    queue = broker.queue("q")
    queue.send(b"m", headers=[("traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode())])
    queue.send(b"m")
    first, second = queue.receive(2)
    assert message_fields(first, "q", error="e") == {
        "message_id": "q-0-0", "topic": "q", "partition": 0, "offset": 0, "group": "q", "delivery_count": 1,
        "trace_id": TRACE, "error": "e",
    }  # fmt: skip
    assert message_fields(second, "q")["trace_id"] is None


def test_a_worker_says_which_message_failed(broker: penstock.Broker, caplog: pytest.LogCaptureFixture) -> None:
    queue = broker.queue("q")
    queue.send(b"m")
    failed = threading.Event()

    def handle(message: penstock.Message) -> None:
        failed.set()
        raise ValueError("no")

    worker = queue.worker(handle, retry=penstock.RetryPolicy(max_attempts=1)).start()
    assert failed.wait(30)
    worker.stop()
    worker.join()
    (record,) = [record for record in caplog.records if record.name == "penstock.worker"]
    assert record.levelno == logging.WARNING
    assert (record.message_id, record.offset, record.group) == ("q-0-0", 0, "q")  # type: ignore[attr-defined]
    assert record.error == "ValueError('no')"  # type: ignore[attr-defined]


def test_a_consumer_says_what_it_missed(broker: penstock.Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.create_topic("t").append(b"v")
    with broker.consumer("t", group="g") as consumer:
        consumer.assignment()
        consumer.seek(penstock.TopicPartition("t", 0), 99)
        consumer.poll(timeout=0)
    (record,) = [record for record in caplog.records if record.name == "penstock.consumer"]
    assert (record.topic, record.partition, record.offset, record.group) == ("t", 0, 99, "g")  # type: ignore[attr-defined]


def test_who_does_not_ask_hears_nothing() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("penstock").handlers)
