"""Spans by OpenTelemetry's messaging conventions, and their context in the headers of records.

    from penstock.observe import tracing
    tracing.instrument(broker)

Needs the extra `tracing` (opentelemetry-api). Until `instrument` is called nothing of this costs anything: the methods
are wrapped then, and unwrapped when the last broker is `uninstrument`ed.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer, TracerProvider, get_current_span, get_tracer_provider

from penstock.errors import InvalidTypeError
from penstock.observe.trace_context import context_of, links_to, span_context

if TYPE_CHECKING:
    from penstock.queues.broker import Broker

SYSTEM = "penstock"
_tracers: weakref.WeakKeyDictionary[Any, Tracer] = weakref.WeakKeyDictionary()
_inside: ContextVar[bool] = ContextVar("penstock_tracing", default=False)
Attributes = dict[str, Any]


def instrument(broker: Broker, tracer_provider: TracerProvider | None = None) -> None:
    """Trace what this process does with a broker: its producers, topics, consumers, queues, workers and event buses.

    Spans (`<operation> <destination>`): `create` (`Producer.send`), `send` (`Producer.send_many`, `Topic.append`,
    `Queue.send`), `publish` (exchanges, event buses), `poll` and `receive` (what returned something), `process`
    (handlers of workers and buses; elsewhere by `process`), `ack`, `nack`, `reject`, `commit` (settling). What is sent
    one by one carries the context; a `process` span continues that trace, and where a batch has several, they are
    linked.
    `tracer_provider`: default the global one. Again for the same broker: replaces the provider.
    """
    from penstock.observe import trace_patches

    _tracers[broker] = (tracer_provider or get_tracer_provider()).get_tracer("penstock")
    trace_patches.apply()


def uninstrument(broker: Broker) -> None:
    """Trace this broker no longer."""
    from penstock.observe import trace_patches

    _tracers.pop(broker, None)
    if not _tracers:
        trace_patches.remove()


def tracer_of(broker: Any) -> Tracer | None:
    """The broker's tracer; None when it is not traced, or inside of a call that is."""
    return None if _inside.get() else _tracers.get(broker)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """What is called inside of this makes no spans of its own."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def attributes(kind: str, name: str, destination: str | None, **more: Any) -> Attributes:
    """The conventions' attributes; what is None is left out. Names in `more` have `__` for a dot."""
    found = {
        "messaging.system": SYSTEM,
        "messaging.operation.type": kind,
        "messaging.operation.name": name,
        "messaging.destination.name": destination,
        **{f"messaging.{key.replace('__', '.')}": value for key, value in more.items()},
    }
    return {key: value for key, value in found.items() if value is not None}


def record_attributes(record: Any) -> Attributes:
    """Where a record (or message) is stored."""
    found: Attributes = {
        "messaging.destination.partition.id": str(record.partition),
        "messaging.penstock.offset": record.offset,
        "messaging.message.id": f"{record.topic}-{record.partition}-{record.offset}",
    }
    if record.value is not None:
        found["messaging.message.body.size"] = len(record.value)
    key = getattr(record, "key", None)
    if key is not None:
        found["messaging.penstock.message.key"] = key.decode("utf-8", "replace")
    delivery_count = getattr(record, "delivery_count", None)
    if delivery_count is not None:
        found["messaging.penstock.delivery_count"] = delivery_count
    return found


def headers_of(record: Any) -> Iterable[tuple[str, bytes | None]]:
    """Every header of a record or message."""
    headers: Iterable[tuple[str, bytes | None]] = record.headers
    return headers


@contextlib.contextmanager
def processing(tracer: Tracer, name: str, context: Context, found: Attributes) -> Iterator[Span]:
    """A process span: part of the trace that the record carries, unless there is a current one; then linked to it."""
    parent = None if get_current_span().get_span_context().is_valid or span_context(context) is None else context
    with tracer.start_as_current_span(
        name, context=parent, kind=SpanKind.CONSUMER, attributes=found, links=links_to([context])
    ) as span:
        yield span


@contextlib.contextmanager
def process(record: Any, group: str | None = None, tracer_provider: TracerProvider | None = None) -> Iterator[Span]:
    """A process span around what is done with a record, message or list of them: `with tracing.process(record): ...`

    It continues the trace of the record; of several, it is linked to each. An exception that leaves the block is noted
    in the span. `group`: name of the consumer group. `tracer_provider`: default the global one. Works without
    `instrument`. Raises `InvalidTypeError`.
    """
    tracer = (tracer_provider or get_tracer_provider()).get_tracer("penstock")
    records = list(record) if isinstance(record, (list, tuple)) else [record]
    if not records or not all(hasattr(one, "topic") and hasattr(one, "headers") for one in records):
        raise InvalidTypeError(f"record is {record!r}; a Record, a Message, or a list of them is needed")
    topics = {one.topic for one in records}
    topic = topics.pop() if len(topics) == 1 else None
    found = attributes("process", "process", topic, consumer__group__name=group)
    name = f"process {topic}" if topic else "process"
    if len(records) == 1:
        with processing(
            tracer, name, context_of(headers_of(records[0])), {**found, **record_attributes(records[0])}
        ) as span:
            yield span
        return
    found["messaging.batch.message_count"] = len(records)
    links = links_to(context_of(headers_of(one)) for one in records)
    with tracer.start_as_current_span(name, kind=SpanKind.CONSUMER, attributes=found, links=links) as span:
        yield span
