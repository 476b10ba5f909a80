"""Wraps the methods that make spans while a broker is traced; see `trace_sending`, `trace_receiving`, `trace_handling`.

Applied to classes when the first broker is instrumented, taken off again with the last. Thread safety: any.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Callable
from typing import Any

from penstock._native.fetcher import native_iteration
from penstock._native.message import set_around_ack
from penstock.aio.worker import AsyncWorker
from penstock.observe import trace_handling, trace_receiving, trace_sending
from penstock.queues.exchange import Exchange
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
        _wrap(Topic, "append", functools.partial(trace_sending.sending, "send", lambda topic, args: topic.name))
        _wrap(
            Producer,
            "send",
            functools.partial(trace_sending.sending, "create", lambda producer, args: args[0] if args else None),
        )
        _wrap(Topic, "append_batch", trace_sending.sending_batch)
        _wrap(Producer, "send_many", trace_sending.sending_many)
        _wrap(Queue, "send", functools.partial(trace_sending.sending, "send", lambda queue, args: queue.name))
        _wrap(
            Exchange,
            "publish",
            functools.partial(trace_sending.sending, "publish", lambda exchange, args: exchange.name),
        )
        _wrap(Consumer, "poll", trace_receiving.polling)
        _wrap(Consumer, "poll_batches", trace_receiving.polling)
        _wrap(Consumer, "__next__", trace_receiving.iterating)
        _wrap(Consumer, "commit", trace_receiving.committing)
        _wrap(ShareGroup, "receive", trace_receiving.receiving)
        _wrap(ShareGroup, "_receive_until", trace_receiving.receiving)
        _wrap(ShareGroup, "ack_many", trace_receiving.acknowledging)
        _wrap(ShareGroup, "_nack", functools.partial(trace_receiving.settling, "nack"))
        _wrap(ShareGroup, "_reject", functools.partial(trace_receiving.settling, "reject"))
        _wrap(Worker, "_handle", trace_handling.working)
        _wrap(Worker, "_failed", trace_handling.failing)
        _wrap(AsyncWorker, "_handle", trace_handling.working_async)
        set_around_ack(trace_receiving.ack)
        if importlib.util.find_spec("msgspec") is not None:
            from penstock.events.bus import EventBus
            from penstock.events.bus_group import Group

            _wrap(EventBus, "publish", trace_handling.publishing)
            _wrap(EventBus, "publish_many", trace_handling.publishing)
            _wrap(EventBus, "_wrap", trace_handling.enveloping)
            _wrap(Group, "_call", trace_handling.handling)
            _wrap(Group, "_call_async", trace_handling.handling_async)
            _wrap(Group, "_call_batch", trace_handling.handling_batch)


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
