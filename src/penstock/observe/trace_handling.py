"""Spans of what workers and event buses do with messages; of buses also of what they publish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, get_current_span

from penstock.error_text import line_of
from penstock.observe import tracing
from penstock.observe.trace_context import carried, context_in, context_of, links_to
from penstock.observe.tracing import alone, attributes, processing, record_attributes, tracer_of

Method = Callable[..., Any]


def _message_span(tracer: Tracer, message: Any, group: str) -> Any:
    found = attributes("process", "process", message.topic, consumer__group__name=group)
    context = context_of(message.all_headers)
    return processing(tracer, f"process {message.topic}", context, {**found, **record_attributes(message)})


def working(original: Method) -> Method:
    def call(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self._queue._broker)
        if tracer is None:
            return original(self, message, *args, **kwargs)
        with _message_span(tracer, message, self._queue.group):
            return original(self, message, *args, **kwargs)

    return call


def working_async(original: Method) -> Method:
    async def call(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        share = self._group.sync
        tracer = tracer_of(share._broker)
        if tracer is None:
            return await original(self, message, *args, **kwargs)
        with _message_span(tracer, message, share.group):
            return await original(self, message, *args, **kwargs)

    return call


def failing(original: Method) -> Method:
    def call(self: Any, message: Any, error: BaseException, *args: Any, **kwargs: Any) -> Any:
        if tracer_of(self._queue._broker) is not None:
            span = get_current_span()
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, line_of(error)))
            span.set_attribute("error.type", type(error).__qualname__)
        return original(self, message, error, *args, **kwargs)

    return call


def publishing(original: Method) -> Method:
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


def enveloping(original: Method) -> Method:
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


def handling(original: Method) -> Method:
    def call(self: Any, handler: Any, event: Any, envelope: Any) -> Any:
        tracer = tracer_of(self.source._broker)
        if tracer is None:
            return original(self, handler, event, envelope)
        with _event_span(self, tracer, envelope):
            return original(self, handler, event, envelope)

    return call


def handling_async(original: Method) -> Method:
    async def call(self: Any, handler: Any, event: Any, envelope: Any) -> Any:
        tracer = tracer_of(self.source._broker)
        if tracer is None or not handler.is_async:  # what is not async goes through `_call`
            return await original(self, handler, event, envelope)
        with _event_span(self, tracer, envelope):
            return await original(self, handler, event, envelope)

    return call


def handling_batch(original: Method) -> Method:
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
