"""Spans of what is sent, and the context in its headers. No wrapper knows a signature, but for where the headers go."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sized
from typing import Any

from opentelemetry.trace import SpanKind

from penstock.observe import tracing
from penstock.observe.trace_context import with_context
from penstock.observe.tracing import alone, attributes, tracer_of

Method = Callable[..., Any]


def sending(operation: str, destination: Callable[[Any, tuple[Any, ...]], Any], original: Method) -> Method:
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
        target = destination(self, args)
        if target is None:
            target = kwargs.get("topic")
        found = attributes("create" if operation == "create" else "send", operation, target)
        with tracer.start_as_current_span(
            f"{operation} {target}".rstrip(), kind=SpanKind.PRODUCER, attributes=found
        ) as span:
            args = carrying(args, kwargs)
            with alone():
                stored = original(self, *args, **kwargs)
            _note_stored(span, stored)
            return stored

    return call


def _note_stored(span: Any, stored: Any) -> None:
    if isinstance(stored, list):  # the ids of the copies that an exchange made
        span.set_attribute("messaging.penstock.copies", len(stored))
        if len(stored) == 1:
            span.set_attribute("messaging.message.id", stored[0])
    elif isinstance(stored, str):  # the id of a message: <topic>-<partition>-<offset>
        span.set_attribute("messaging.message.id", stored)
        _, partition, offset = stored.rsplit("-", 2)
        span.set_attribute("messaging.destination.partition.id", partition)
        span.set_attribute("messaging.penstock.offset", int(offset))
    elif stored is not None:
        span.set_attribute("messaging.message.id", f"{stored.topic}-{stored.partition}-{stored.offset}")
        span.set_attribute("messaging.destination.partition.id", str(stored.partition))
        span.set_attribute("messaging.penstock.offset", stored.offset)


def sending_many(original: Method) -> Method:
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


def sending_batch(original: Method) -> Method:
    """Of `Topic.append_batch`: the records of a batch carry nothing."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(self._broker)
        if tracer is None:
            return original(self, *args, **kwargs)
        values = args[0] if args else kwargs.get("values")
        found = attributes("send", "send", self.name)
        if isinstance(values, Sized):
            found["messaging.batch.message_count"] = len(values)
        with tracer.start_as_current_span(f"send {self.name}", kind=SpanKind.PRODUCER, attributes=found) as span:
            stored = original(self, *args, **kwargs)
            _note_stored(span, stored)
            return stored

    return call
