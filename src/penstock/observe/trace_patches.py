"""The wrappers that make spans. None of them knows the signature of what it wraps, but for where the headers go.

Applied to classes when the first broker is instrumented, taken off again with the last. Thread safety: any.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, get_current_span

from penstock._native.fetcher import native_iteration
from penstock._native.message import Message, accept, set_around_ack
from penstock.aio.worker import AsyncWorker
from penstock.observe import tracing
from penstock.observe.trace_context import carried, context_in, context_of, links_to, with_context
from penstock.observe.tracing import alone, attributes, processing, record_attributes, tracer_of
from penstock.queues.queue import Queue
from penstock.queues.share_group import ShareGroup
from penstock.queues.worker import Worker
from penstock.streams.consumer import Consumer
from penstock.streams.producer import Producer
from penstock.streams.topic import Topic

Method = Callable[..., Any]
_ABSENT = object()
_lock = threading.Lock()
_applied: list[tuple[type, str, object]] = []


def apply() -> None:
    """Wrap the methods, once."""
    with _lock:
        if _applied:
            return
        _wrap(Topic, "append", functools.partial(_sending, "send", lambda topic, args: topic.name))
        _wrap(Producer, "send", functools.partial(_sending, "create", lambda producer, args: args[0] if args else None))
        _wrap(Producer, "send_many", _sending_many)
        _wrap(Queue, "send", functools.partial(_sending, "send", lambda queue, args: queue.name))
        _wrap(Consumer, "poll", _polling)
        _wrap(Consumer, "poll_batches", _polling)
        _wrap(Consumer, "__next__", _iterating)
        _wrap(Consumer, "commit", _committing)
        _wrap(ShareGroup, "receive", _receiving)
        _wrap(ShareGroup, "_receive_until", _receiving)
        _wrap(ShareGroup, "ack_many", _acknowledging)
        _wrap(ShareGroup, "_nack", functools.partial(_settling, "nack"))
        _wrap(ShareGroup, "_reject", functools.partial(_settling, "reject"))
        _wrap(Worker, "_handle", _working)
        _wrap(Worker, "_failed", _failing)
        _wrap(AsyncWorker, "_handle", _working_async)
        set_around_ack(_ack)
        if importlib.util.find_spec("msgspec") is not None:
            from penstock.events.bus import EventBus
            from penstock.events.bus_group import Group

            _wrap(EventBus, "publish", _publishing)
            _wrap(EventBus, "publish_many", _publishing)
            _wrap(EventBus, "_wrap", _enveloping)
            _wrap(Group, "_call", _handling)
            _wrap(Group, "_call_async", _handling_async)
            _wrap(Group, "_call_batch", _handling_batch)


def remove() -> None:
    """Put everything back."""
    with _lock:
        while _applied:
            kind, name, before = _applied.pop()
            if before is _ABSENT:
                delattr(kind, name)
            else:
                setattr(kind, name, before)
        set_around_ack(None)
        native_iteration(Consumer)


def _wrap(kind: type, name: str, make: Callable[[Method], Method]) -> None:
    original = getattr(kind, name)
    before = kind.__dict__.get(name, _ABSENT)
    setattr(kind, name, functools.wraps(original)(make(original)))
    _applied.append((kind, name, before))


# --- sending -------------------------------------------------------------------------------------------------------


def _sending(operation: str, destination: Callable[[Any, tuple[Any, ...]], Any], original: Method) -> Method:
    place = list(inspect.signature(original).parameters).index("headers") - 1  # without self

    def carrying(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if len(args) > place:
            return (*args[:place], with_context(args[place]), *args[place + 1 :])
        kwargs["headers"] = with_context(kwargs.get("headers"))
        return args

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self._broker)
        if tracer is None:
            if tracing._inside.get() and self._broker in tracing._tracers:
                args = carrying(args, kwargs)  # the span around it is what is carried
            return original(self, *args, **kwargs)
        target = destination(self, args) or kwargs.get("topic")
        found = attributes(operation, operation, target)
        with tracer.start_as_current_span(f"{operation} {target}", kind=SpanKind.PRODUCER, attributes=found) as span:
            args = carrying(args, kwargs)
            with alone():
                stored = original(self, *args, **kwargs)
            _note_stored(span, stored)
            return stored

    return call


def _note_stored(span: Any, stored: Any) -> None:
    if isinstance(stored, str):  # the id of a message: <topic>-<partition>-<offset>
        span.set_attribute("messaging.message.id", stored)
        _, partition, offset = stored.rsplit("-", 2)
        span.set_attribute("messaging.destination.partition.id", partition)
        span.set_attribute("messaging.penstock.offset", int(offset))
    elif stored is not None:
        span.set_attribute("messaging.message.id", f"{stored.topic}-{stored.partition}-{stored.offset}")
        span.set_attribute("messaging.destination.partition.id", str(stored.partition))
        span.set_attribute("messaging.penstock.offset", stored.offset)


def _sending_many(original: Method) -> Method:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self._broker)
        if tracer is None:
            return original(self, *args, **kwargs)
        topic = args[0] if args else kwargs.get("topic")
        found = attributes("send", "send", topic)
        with tracer.start_as_current_span(f"send {topic}", kind=SpanKind.PRODUCER, attributes=found) as span:
            with alone():
                sent = original(self, *args, **kwargs)
            span.set_attribute("messaging.batch.message_count", sent)
            return sent

    return call


# --- receiving -----------------------------------------------------------------------------------------------------


def _received(tracer: Tracer, operation: str, records: list[Any], group: str | None, started_ns: int) -> None:
    """A span for what came, begun when it was asked for; it is linked to what sent it."""
    topics = {record.topic for record in records}
    topic = topics.pop() if len(topics) == 1 else None
    found = attributes("receive", operation, topic, consumer__group__name=group)
    single = len(records) == 1 and hasattr(records[0], "headers")
    if single:
        found.update(record_attributes(records[0]))
    else:
        found["messaging.batch.message_count"] = sum(getattr(record, "count", 1) for record in records)
    links = links_to(context_of(record.headers) for record in records if hasattr(record, "headers"))
    name = f"{operation} {topic}" if topic else operation
    tracer.start_span(name, kind=SpanKind.CLIENT, attributes=found, links=links, start_time=started_ns).end()


def _asking(operation: str, group: Callable[[Any], str | None], original: Method) -> Method:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self._broker)
        if tracer is None:
            return original(self, *args, **kwargs)
        started_ns = time.time_ns()
        with alone():
            found = original(self, *args, **kwargs)
        if found:
            _received(tracer, operation, found if isinstance(found, list) else [found], group(self), started_ns)
        return found

    return call


_polling = functools.partial(_asking, "poll", lambda consumer: consumer.group)
_iterating = functools.partial(_asking, "receive", lambda consumer: consumer.group)
_receiving = functools.partial(_asking, "receive", lambda share: share.group)


# --- settling ------------------------------------------------------------------------------------------------------


def _settle_span(tracer: Tracer, operation: str, message: Any, group: str) -> Any:
    found = attributes("settle", operation, message.topic, consumer__group__name=group)
    return tracer.start_as_current_span(
        f"{operation} {message.topic}",
        kind=SpanKind.CLIENT,
        attributes={**found, **record_attributes(message)},
        links=links_to([context_of(message.all_headers)]),
    )


def _ack(message: Message) -> None:
    share = message.queue
    tracer = None if share is None else tracer_of(share._broker)
    if tracer is None:
        accept(message)
        return
    with _settle_span(tracer, "ack", message, share.group):
        accept(message)


def _settling(operation: str, original: Method) -> Method:
    def call(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self._broker)
        if tracer is None:
            return original(self, message, *args, **kwargs)
        with _settle_span(tracer, operation, message, self.group), alone():
            return original(self, message, *args, **kwargs)

    return call


def _acknowledging(original: Method) -> Method:
    def call(self: Any, messages: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self._broker)
        if tracer is None:
            return original(self, messages, *args, **kwargs)
        given = list(messages)
        found = attributes("settle", "ack", self.topic_name, consumer__group__name=self.group)
        found["messaging.batch.message_count"] = len(given)
        links = links_to(context_of(message.all_headers) for message in given if isinstance(message, Message))
        with tracer.start_as_current_span(
            f"ack {self.topic_name}", kind=SpanKind.CLIENT, attributes=found, links=links
        ):
            return original(self, given, *args, **kwargs)

    return call


def _committing(original: Method) -> Method:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self._broker)
        if tracer is None:
            return original(self, *args, **kwargs)
        found = attributes("settle", "commit", None, consumer__group__name=self.group)
        with tracer.start_as_current_span(f"commit {self.group}", kind=SpanKind.CLIENT, attributes=found):
            return original(self, *args, **kwargs)

    return call


# --- workers -------------------------------------------------------------------------------------------------------


def _message_span(tracer: Tracer, message: Any, group: str) -> Any:
    found = attributes("process", "process", message.topic, consumer__group__name=group)
    context = context_of(message.all_headers)
    return processing(tracer, f"process {message.topic}", context, {**found, **record_attributes(message)})


def _working(original: Method) -> Method:
    def call(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self._queue._broker)
        if tracer is None:
            return original(self, message, *args, **kwargs)
        with _message_span(tracer, message, self._queue.group):
            return original(self, message, *args, **kwargs)

    return call


def _working_async(original: Method) -> Method:
    async def call(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        share = self._group.sync
        tracer = tracer_of(share._broker)
        if tracer is None:
            return await original(self, message, *args, **kwargs)
        with _message_span(tracer, message, share.group):
            return await original(self, message, *args, **kwargs)

    return call


def _failing(original: Method) -> Method:
    def call(self: Any, message: Any, error: BaseException, *args: Any, **kwargs: Any) -> Any:
        if tracer_of(self._queue._broker) is not None:
            span = get_current_span()
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
            span.set_attribute("error.type", type(error).__qualname__)
        return original(self, message, error, *args, **kwargs)

    return call


# --- event buses ---------------------------------------------------------------------------------------------------


def _publishing(original: Method) -> Method:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self.broker)
        if tracer is None:
            return original(self, *args, **kwargs)
        found = attributes("send", "publish", self.topic)
        with tracer.start_as_current_span(f"publish {self.topic}", kind=SpanKind.PRODUCER, attributes=found) as span:
            with alone():
                published = original(self, *args, **kwargs)
            if isinstance(published, list):
                span.set_attribute("messaging.batch.message_count", len(published))
            else:
                span.set_attributes(_envelope_attributes(published))
            return published

    return call


def _envelope_attributes(envelope: Any) -> dict[str, Any]:
    return {
        "messaging.message.id": envelope.message_id,
        "messaging.message.conversation_id": envelope.correlation_id,
        "messaging.penstock.event.type": envelope.type,
    }


def _enveloping(original: Method) -> Method:
    """Puts `traceId` (and the whole context) into the metadata of a new envelope."""

    def call(self: Any, event: Any, options: dict[str, Any]) -> Any:
        span = get_current_span().get_span_context()
        if self.broker in tracing._tracers and span.is_valid and hasattr(event, "event_type"):
            traced = {"traceId": f"{span.trace_id:032x}", **carried()}
            options = {**options, "metadata": {**traced, **(options.get("metadata") or {})}}
        return original(self, event, options)

    return call


def _topic_of(group: Any) -> str:
    name: str = group.source._dead  # <topic>.<group>.dead
    return name.removesuffix(f".{group.name}.dead")


def _event_span(group: Any, tracer: Tracer, envelope: Any) -> Any:
    topic = _topic_of(group)
    found = attributes("process", "process", topic, consumer__group__name=group.name)
    return processing(
        tracer, f"process {topic}", context_in(envelope.metadata), {**found, **_envelope_attributes(envelope)}
    )


def _handling(original: Method) -> Method:
    def call(self: Any, handler: Any, event: Any, envelope: Any) -> Any:
        tracer = tracer_of(self.source._broker)
        if tracer is None:
            return original(self, handler, event, envelope)
        with _event_span(self, tracer, envelope):
            return original(self, handler, event, envelope)

    return call


def _handling_async(original: Method) -> Method:
    async def call(self: Any, handler: Any, event: Any, envelope: Any) -> Any:
        tracer = tracer_of(self.source._broker)
        if tracer is None or not handler.is_async:  # what is not async goes through `_call`
            return await original(self, handler, event, envelope)
        with _event_span(self, tracer, envelope):
            return await original(self, handler, event, envelope)

    return call


def _handling_batch(original: Method) -> Method:
    def call(self: Any, wanted: Any, handler: Any) -> Any:
        tracer = tracer_of(self.source._broker)
        if tracer is None:
            return original(self, wanted, handler)
        envelopes = [envelope for _, envelope, *_ in wanted]
        if len(envelopes) == 1:
            with _event_span(self, tracer, envelopes[0]):
                return original(self, wanted, handler)
        topic = _topic_of(self)
        found = attributes("process", "process", topic, consumer__group__name=self.name)
        found["messaging.batch.message_count"] = len(envelopes)
        links = links_to(context_in(envelope.metadata) for envelope in envelopes)
        with tracer.start_as_current_span(f"process {topic}", kind=SpanKind.CONSUMER, attributes=found, links=links):
            return original(self, wanted, handler)

    return call
