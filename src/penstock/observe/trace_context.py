"""The context of a trace in the headers of a record: W3C `traceparent` and `tracestate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_propagator = TraceContextTextMapPropagator()
TRACEPARENT = "traceparent"
LINKS_MAX = 128  # as many as an SDK keeps by default


def carried() -> dict[str, str]:
    """What names the current span to others; {} when there is none."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier


def with_context(headers: Any) -> Any:
    """`headers` and the current span's context; as they are when they have one already, or cannot be looked at."""
    if isinstance(headers, Mapping):
        pairs = list(headers.items())
    elif headers is None or isinstance(headers, (list, tuple)):
        pairs = list(headers or ())
    else:
        return headers  # an iterator would be used up, and what is no headers at all is refused by who gets it
    if any(isinstance(pair, (list, tuple)) and len(pair) == 2 and pair[0] == TRACEPARENT for pair in pairs):
        return headers
    return [*pairs, *((name, value.encode()) for name, value in carried().items())]


def context_of(headers: Iterable[tuple[str, bytes | None]]) -> Context:
    """The context that a record carries (an empty one when it carries none)."""
    carrier = {
        name: value.decode("ascii", "replace") for name, value in headers if value is not None and name[:5] == "trace"
    }
    return _propagator.extract(carrier, Context())


def context_in(metadata: Mapping[str, Any]) -> Context:
    """The context that an envelope carries."""
    carrier = {name: value for name, value in metadata.items() if name[:5] == "trace" and isinstance(value, str)}
    return _propagator.extract(carrier, Context())


def span_context(context: Context) -> SpanContext | None:
    """The span that a context names, or None."""
    found = get_current_span(context).get_span_context()
    return found if found.is_valid else None


def links_to(contexts: Iterable[Context]) -> list[Link]:
    """A link to each span that these contexts name, the first ones when there are many."""
    links = []
    for context in contexts:
        found = span_context(context)
        if found is not None:
            links.append(Link(found))
            if len(links) == LINKS_MAX:
                break
    return links
