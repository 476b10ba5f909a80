"""Spans of what is received and settled."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.trace import SpanKind, Tracer

from penstock._native.message import Message, accept
from penstock.observe.trace_context import context_of, links_to
from penstock.observe.tracing import alone, attributes, record_attributes, tracer_of

Method = Callable[..., Any]


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


polling = functools.partial(_asking, "poll", lambda consumer: consumer.group)
iterating = functools.partial(_asking, "receive", lambda consumer: consumer.group)
receiving = functools.partial(_asking, "receive", lambda share: share.group)


def _settle_span(tracer: Tracer, operation: str, message: Any, group: str) -> Any:
    found = attributes("settle", operation, message.topic, consumer__group__name=group)
    return tracer.start_as_current_span(
        f"{operation} {message.topic}",
        kind=SpanKind.CLIENT,
        attributes={**found, **record_attributes(message)},
        links=links_to([context_of(message.all_headers)]),
    )


def ack(message: Message) -> None:
    share = message.queue
    tracer = None if share is None else tracer_of(share._broker)
    if tracer is None:
        accept(message)
        return
    with _settle_span(tracer, "ack", message, share.group):
        accept(message)


def settling(operation: str, original: Method) -> Method:
    def call(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self._broker)
        if tracer is None:
            return original(self, message, *args, **kwargs)
        with _settle_span(tracer, operation, message, self.group), alone():
            return original(self, message, *args, **kwargs)

    return call


def acknowledging(original: Method) -> Method:
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


def committing(original: Method) -> Method:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self._broker)
        if tracer is None:
            return original(self, *args, **kwargs)
        found = attributes("settle", "commit", None, consumer__group__name=self.group)
        with tracer.start_as_current_span(f"commit {self.group}", kind=SpanKind.CLIENT, attributes=found):
            return original(self, *args, **kwargs)

    return call
