"""Spans, their attributes, parents and links, as the in-memory exporter of the SDK sees them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from penstock import events
from penstock.observe import trace_patches, tracing


class Spans:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def names(self) -> list[str]:
        return [span.name for span in self.all()]

    def one(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.all() if span.name == name]
        return found


@pytest.fixture
def spans() -> Iterator[Spans]:
    found = Spans()
    yield found
    found.provider.shutdown()


@pytest.fixture
def traced(broker: penstock.Broker, spans: Spans) -> Iterator[penstock.Broker]:
    tracing.instrument(broker, spans.provider)
    yield broker
    tracing.uninstrument(broker)


def context(span: ReadableSpan) -> tuple[int, int]:
    found = span.get_span_context()
    return found.trace_id, found.span_id


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def traceparent(record: Any) -> tuple[int, int]:
    headers = dict(record.headers)
    _, trace_id, span_id, _ = headers["traceparent"].decode().split("-")
    return int(trace_id, 16), int(span_id, 16)


def test_append_and_poll(traced: penstock.Broker, spans: Spans) -> None:
    topic = traced.create_topic("orders")
    meta = topic.append(b"body", key=b"k", headers=[("h", b"v")])
    sent = spans.one("send orders")
    assert sent.kind is SpanKind.PRODUCER
    assert sent.attributes == {
        "messaging.system": "penstock",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": "orders",
        "messaging.destination.partition.id": "0",
        "messaging.penstock.offset": meta.offset,
        "messaging.message.id": "orders-0-0",
    }
    topic.append(b"two")
    with traced.consumer("orders", group="billing") as consumer:
        first, second = consumer.poll()
        assert consumer.poll(timeout=0) == []
        consumer.commit()
    assert dict(first.headers)["h"] == b"v"
    assert traceparent(first) == context(sent)
    polled = spans.one("poll orders")
    assert polled.kind is SpanKind.CLIENT
    assert polled.attributes["messaging.batch.message_count"] == 2  # type: ignore[index]
    assert polled.attributes["messaging.consumer.group.name"] == "billing"  # type: ignore[index]
    assert links(polled) == [traceparent(first), traceparent(second)]
    assert spans.one("commit billing").attributes["messaging.operation.type"] == "settle"  # type: ignore[index]


def test_producer(traced: penstock.Broker, spans: Spans) -> None:
    traced.create_topic("orders")
    with traced.producer() as producer:
        producer.send("orders", b"one", b"k")
        producer.send(topic="orders", value=b"two", headers={"h": b"v"})
        producer.send_many("orders", [b"three", b"four"], [b"k", b"k"])
    assert spans.names() == ["create orders", "create orders", "send orders"]
    assert spans.one("send orders").attributes["messaging.batch.message_count"] == 2  # type: ignore[index]
    with traced.consumer("orders") as consumer:
        records = {record.value: record for record in consumer.poll()}
    assert traceparent(records[b"one"]) == context(spans.all()[0])
    assert records[b"two"].headers[0] == ("h", b"v")
    assert records[b"three"].headers == []


def test_batches_of_a_topic(traced: penstock.Broker, spans: Spans) -> None:
    traced.create_topic("orders").append_batch([b"1", b"2"])
    sent = spans.one("send orders")
    assert sent.attributes["messaging.batch.message_count"] == 2  # type: ignore[index]
    assert sent.attributes["messaging.message.id"] == "orders-0-0"  # type: ignore[index]


def test_iteration_and_process(traced: penstock.Broker, spans: Spans) -> None:
    traced.create_topic("orders").append(b"v")
    with traced.consumer("orders") as consumer:
        for record in consumer:
            with tracing.process(record, group="billing", tracer_provider=spans.provider) as span:
                span.set_attribute("mine", 1)
            break
    sent, received, processed = (spans.one(f"{name} orders") for name in ("send", "receive", "process"))
    assert links(received) == [context(sent)]
    assert processed.kind is SpanKind.CONSUMER
    assert processed.parent is not None
    assert (processed.parent.trace_id, processed.parent.span_id) == context(sent)
    assert processed.attributes["mine"] == 1  # type: ignore[index]
    assert processed.attributes["messaging.message.body.size"] == 1  # type: ignore[index]
    assert processed.attributes["messaging.message.id"] == "orders-0-0"  # type: ignore[index]


def test_a_batch_is_linked(traced: penstock.Broker, spans: Spans) -> None:
    topic = traced.create_topic("orders")
    topic.append(b"1")
    topic.append(b"2")
    with traced.consumer("orders") as consumer:
        records = consumer.poll()
    with pytest.raises(RuntimeError), tracing.process(records, tracer_provider=spans.provider):
        raise RuntimeError("no")
    processed = spans.one("process orders")
    assert processed.status.status_code is StatusCode.ERROR
    assert links(processed) == [traceparent(record) for record in records]
    assert processed.attributes["messaging.batch.message_count"] == 2  # type: ignore[index]


def test_a_span_that_is_open_is_the_parent(traced: penstock.Broker, spans: Spans) -> None:
    topic = traced.create_topic("orders")
    tracer = spans.provider.get_tracer("test")
    with tracer.start_as_current_span("outer") as outer:
        topic.append(b"v")
    sent = spans.one("send orders")
    assert sent.parent is not None and sent.parent.span_id == outer.get_span_context().span_id
    with traced.consumer("orders") as consumer:
        (record,) = consumer.poll()
    with tracer.start_as_current_span("worker") as worker:
        with tracing.process(record, tracer_provider=spans.provider):
            pass
    processed = spans.one("process orders")
    assert processed.parent is not None and processed.parent.span_id == worker.get_span_context().span_id
    assert links(processed) == [context(sent)]


def test_queue(traced: penstock.Broker, spans: Spans) -> None:
    queue = traced.queue("emails")
    ids = [queue.send(b"a"), queue.send(b"b", headers=[("h", b"v")]), queue.send(b"c"), queue.send(b"d")]
    assert [span.attributes["messaging.message.id"] for span in spans.all()] == ids  # type: ignore[index]
    messages = queue.receive(4)
    assert dict(messages[1].headers)["h"] == b"v"
    spans.exporter.clear()
    messages[0].ack()
    messages[1].nack()
    messages[2].reject()
    queue.ack_many(messages[3:])
    assert spans.names() == ["ack emails", "nack emails", "reject emails", "ack emails"]
    for span in spans.all():
        assert span.attributes["messaging.operation.type"] == "settle"  # type: ignore[index]
        assert span.attributes["messaging.destination.name"] == "emails"  # type: ignore[index]
    assert links(spans.all()[1]) == [traceparent(messages[1])]
    assert queue.stats().acknowledged == 2
    with pytest.raises(penstock.StaleReceiptError):
        messages[1].ack()
    assert spans.all()[-1].status.status_code is StatusCode.ERROR


def test_exchange(traced: penstock.Broker, spans: Spans) -> None:
    exchange = traced.exchange("events", type="fanout")
    queues = [traced.queue(name) for name in ("a", "b")]
    for queue in queues:
        exchange.bind(queue)
    exchange.publish(b"m", "key")
    published = spans.one("publish events")
    assert published.attributes["messaging.penstock.copies"] == 2  # type: ignore[index]
    assert published.attributes["messaging.operation.type"] == "send"  # type: ignore[index]
    assert len(spans.all()) == 1
    for queue in queues:
        assert traceparent(queue.receive(1)[0]) == context(published)
    traced.exchange("").publish(b"m", "a")
    assert spans.one("publish").attributes["messaging.message.id"] == "a-0-1"  # type: ignore[index]


def test_receive_is_a_span_only_when_something_came(traced: penstock.Broker, spans: Spans) -> None:
    queue = traced.queue("emails")
    assert queue.receive(1, wait=0) == []
    queue.send(b"a")
    queue.receive(1)
    received = spans.one("receive emails")
    assert received.attributes["messaging.penstock.delivery_count"] == 1  # type: ignore[index]
    assert links(received) == [context(spans.one("send emails"))]


def test_worker(traced: penstock.Broker, spans: Spans) -> None:
    queue = traced.queue("emails")
    done = threading.Event()
    log = traced.create_topic("log")

    def handle(message: penstock.Message) -> None:
        if message.value == b"bad":
            raise ValueError("no such address")
        log.append(b"handled")
        done.set()

    queue.send(b"bad")
    queue.send(b"good")
    worker = queue.worker(handle, retry=penstock.RetryPolicy(max_attempts=1)).start()
    assert done.wait(30)
    worker.stop()
    worker.join()
    bad, good = (span for span in spans.all() if span.name == "process emails")
    assert bad.status.status_code is StatusCode.ERROR
    assert bad.attributes["error.type"] == "ValueError"  # type: ignore[index]
    assert bad.events[0].name == "exception"
    assert good.status.status_code is StatusCode.UNSET
    inner = spans.one("send log")
    sent = [span for span in spans.all() if span.name == "send emails"]
    assert good.parent is not None and good.parent.span_id == sent[1].get_span_context().span_id
    assert inner.parent is not None and inner.parent.span_id == good.get_span_context().span_id
    assert {context(span)[0] for span in (inner, good, sent[1])} == {context(sent[1])[0]}, "one trace"
    acks = [span for span in spans.all() if span.name == "ack emails"]
    assert len(acks) == 1 and acks[0].parent is not None
    assert acks[0].parent.span_id == good.get_span_context().span_id


def test_asyncio(traced: penstock.Broker, spans: Spans) -> None:
    async def run() -> None:
        broker = penstock.aio.AsyncBroker(traced)
        queue = await broker.queue("emails")
        done = asyncio.Event()

        async def handle(message: penstock.Message) -> None:
            done.set()

        await queue.send(b"m")
        task = asyncio.create_task(queue.consume(handle))
        await asyncio.wait_for(done.wait(), 30)
        while not queue.sync.stats().acknowledged:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    processed = spans.one("process emails")
    assert processed.parent is not None
    assert processed.parent.span_id == spans.one("send emails").get_span_context().span_id


class Placed(events.Event, type="TracingPlaced", version=1):
    """An order."""

    order_id: str


@pytest.mark.parametrize("style", ["sync", "async", "batch"])
def test_event_bus(traced: penstock.Broker, spans: Spans, style: str) -> None:
    seen: list[events.Envelope] = []
    done = threading.Event()
    with events.EventBus(traced, source="shop") as bus:

        def note(envelope: Any) -> None:
            seen.extend(envelope if isinstance(envelope, list) else [envelope])
            done.set()

        if style == "async":

            @bus.on(Placed, group="billing")
            async def charge(event: Placed, envelope: events.Envelope) -> None:
                await asyncio.sleep(0)
                note(envelope)

        else:

            @bus.on(Placed, group="billing", batch=style == "batch")
            def bill(event: Any, envelope: Any) -> None:
                note(envelope)

        published = bus.publish(Placed("o-1"), key="o-1")
        runner = threading.Thread(target=bus.run)
        runner.start()
        assert done.wait(30)
        bus.stop()
        runner.join()
    sent, processed = spans.one("publish events"), spans.one("process events")
    assert published.metadata["traceId"] == f"{context(sent)[0]:032x}"
    assert seen[0].metadata["traceId"] == published.metadata["traceId"]
    assert processed.parent is not None
    assert (processed.parent.trace_id, processed.parent.span_id) == context(sent)
    assert processed.attributes["messaging.message.id"] == published.message_id  # type: ignore[index]
    assert processed.attributes["messaging.message.conversation_id"] == published.correlation_id  # type: ignore[index]
    assert processed.attributes["messaging.consumer.group.name"] == "billing"  # type: ignore[index]


def test_what_one_handler_publishes_is_of_the_same_trace(traced: penstock.Broker, spans: Spans) -> None:
    done = threading.Event()
    with events.EventBus(traced, source="shop") as bus:

        @bus.on(Placed, group="a")
        def again(event: Placed) -> None:
            if event.order_id == "first":
                bus.publish(Placed("second"))
            else:
                done.set()

        bus.publish(Placed("first"))
        runner = threading.Thread(target=bus.run)
        runner.start()
        assert done.wait(30)
        bus.stop()
        runner.join()
    assert len({context(span)[0] for span in spans.all() if span.name.endswith(" events") and "ack" not in span.name
                and "receive" not in span.name}) == 1  # fmt: skip


def test_headers_that_have_a_context_keep_it(traced: penstock.Broker, spans: Spans) -> None:
    given = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    topic = traced.create_topic("orders")
    topic.append(b"v", headers=[("traceparent", given)])
    with traced.consumer("orders") as consumer:
        (record,) = consumer.poll()
    assert record.headers == [("traceparent", given)]


def test_errors_are_the_same_and_are_noted(traced: penstock.Broker, spans: Spans) -> None:
    topic = traced.create_topic("orders", max_message_bytes=300)
    with pytest.raises(penstock.RecordTooLargeError):
        topic.append(b"v" * 1000)
    with pytest.raises(penstock.InvalidTypeError, match="headers"):
        topic.append(b"v", headers=3)
    assert {span.status.status_code for span in spans.all()} == {StatusCode.ERROR}
    with pytest.raises(TypeError):
        topic.append()  # type: ignore[call-arg]


def test_nothing_is_left_of_it(broker: penstock.Broker, spans: Spans) -> None:
    kinds = (penstock.Topic, penstock.Producer, penstock.Queue, penstock.ShareGroup, penstock.Consumer, penstock.Worker)
    before: list[dict[str, Any]] = [dict(vars(kind)) for kind in kinds]
    following: Callable[..., Any] = penstock.Consumer.__next__
    tracing.instrument(broker, spans.provider)
    tracing.instrument(broker, spans.provider)
    assert penstock.Consumer.__next__ is not following
    tracing.uninstrument(broker)
    assert [dict(vars(kind)) for kind in kinds] == before
    assert penstock.Consumer.__next__ is following
    assert trace_patches._applied == []
    broker.create_topic("t").append(b"v")
    with broker.consumer("t") as consumer:
        assert next(consumer).headers == []
    assert spans.all() == []


def test_only_the_brokers_that_were_named(traced: penstock.Broker, spans: Spans, tmp_path: Path) -> None:
    with penstock.open(tmp_path / "other") as other:
        other.create_topic("t").append(b"v")
        queue = other.queue("q")
        queue.send(b"m")
        queue.receive(1)[0].ack()
        with other.consumer("t") as consumer:
            assert next(iter(consumer)).headers == []
    assert spans.all() == []


def test_process_takes_records_only() -> None:
    with pytest.raises(penstock.InvalidTypeError, match="record is 3"), tracing.process(3):
        pass
