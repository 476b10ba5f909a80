"""A group of handlers: decodes deliveries, calls the handlers, and settles each delivery by what came of it.

A failed event comes again after its handler's retry delay; what follows it in the hand with the same key is given back
with it, so that the order of a key is kept. What cannot be decoded is a dead letter at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from penstock.clock import Clock
from penstock.error_text import repr_of, trace_of
from penstock.errors import InvalidConfigError
from penstock.events.bus_handler import Handler
from penstock.events.bus_loop import HandlerLoop
from penstock.events.bus_source import Delivery, ShareSource, Source
from penstock.events.context import handling
from penstock.events.envelope import Envelope
from penstock.events.errors import InvalidEventError, UnknownEventTypeError
from penstock.events.event import Event
from penstock.events.guard_errors import BackPressureError
from penstock.events.registry import registry

_log = logging.getLogger("penstock.bus")
_FAST_S, _SLOW_S = 0.025, 0.1  # a batch that takes less may grow, one that takes more shrinks
_FIRST = 16
_PAUSE_S = 0.1
_DRAIN_S = 0.002

CANCELLED = "what the handler waited for was cancelled"
Decoded = tuple[Delivery, Envelope, Event, list[Handler]]


class Group:
    """The handlers of one name, and where their events come from. Used by any number of worker threads."""

    def __init__(
        self,
        name: str,
        source: Source,
        settings: dict[str, Any],
        unknown: str,
        clock: Clock,
        loop: HandlerLoop,
    ) -> None:
        self.name = name
        self.source = source
        self.settings = settings
        self.handlers: list[Handler] = []
        self.handled = self.failed = self.dead = 0
        self._unknown = unknown
        self._clock = clock
        self._loop = loop
        self._by_type: dict[str, list[Handler]] = {}
        self._receiving = threading.Lock()
        self._in_hand: dict[int, list[Delivery]] = {}
        self._waiting: set[str] = set()  # ids of what was given back to come again later
        self.drained_by = 0
        self._take = min(_FIRST, settings["prefetch"])

    def leave_parent(self) -> None:
        """In the child of a fork: what is in hand is the parent's."""
        self._receiving = threading.Lock()
        self._in_hand, self._waiting, self.drained_by = {}, set(), 0

    def add(self, handler: Handler) -> None:
        """One more handler. Raises `InvalidConfigError`."""
        if self.handlers and (handler.batch or self.handlers[0].batch):
            raise InvalidConfigError(f"batch is True; group {self.name!r} can then have no other handler")
        self.handlers = [*self.handlers, handler]
        self._by_type = {}
        if isinstance(self.source, ShareSource):
            limits = [one.retry.max_attempts for one in self.handlers]
            self.source.limit(None if None in limits else max(limit for limit in limits if limit is not None))

    # --- receiving -------------------------------------------------------------------------------------------------

    def work(self, wait: float, stopped: Callable[[], bool], limit: int | None = None) -> int | None:
        """Receive and deal with some deliveries, `limit` at the most; how many, or None when a circuit is open. One
        thread waits at a time, so that an event wakes one.
        """
        if limit == 0:
            return 0
        if threading.get_ident() in self._in_hand and self.settings["copies"] == "subscriber":
            return 0  # inside of a handler, behind which all others wait
        with self._receiving:
            if stopped():
                return 0
            allowed = self._allowed()
            if allowed == 0:
                return None
            most = min(one for one in (self._take, allowed, limit) if one is not None)
            deliveries = self.source.receive(most, min(wait, _DRAIN_S) if self.drained_by else wait)
            if not deliveries:
                return 0
            if self.settings["copies"] == "subscriber":  # in order, one by one
                return self._work_on(deliveries, most, stopped)
        return self._work_on(deliveries, most, stopped)

    def _work_on(self, deliveries: list[Delivery], most: int, stopped: Callable[[], bool]) -> int:
        started = self._clock.monotonic()
        thread = threading.get_ident()
        outer = self._in_hand.get(thread, [])  # of a handler in which this is called
        self._in_hand[thread] = [*outer, *deliveries]
        if self._waiting:
            self._waiting.difference_update([delivery.id for delivery in deliveries])
        try:
            if self.handlers and self.handlers[0].batch:
                self._batch(deliveries, self.handlers[0])
            elif any(handler.is_async for handler in self.handlers):
                self._loop.run(self._concurrently(deliveries, stopped))
            else:
                self._one_by_one(deliveries, stopped)
        finally:
            self._in_hand[thread] = outer
            if not outer:
                del self._in_hand[thread]
            self._give_back(deliveries)
        self._adapt(len(deliveries) == most, self._clock.monotonic() - started)
        return len(deliveries)

    def _give_back(self, deliveries: list[Delivery]) -> None:
        """What an interrupt left in the hand."""
        left = [delivery for delivery in deliveries if not delivery.settled]
        if left:
            self.source.release(left)

    def _adapt(self, full: bool, took_s: float) -> None:
        if took_s > _SLOW_S:
            self._take = max(1, int(self._take * _SLOW_S / took_s))
        elif full and took_s < _FAST_S:
            self._take = min(self.settings["prefetch"], self._take * 2)

    def _allowed(self) -> int | None:
        """How many events may be fetched, as far as circuits go; None: any number."""
        allowed = [ready for one in self.handlers if one.breaker and (ready := one.breaker.ready()) is not None]
        return min(allowed, default=None)

    def pause_s(self) -> float:
        """How long to leave the source alone while a circuit is open."""
        return max([one.breaker.retry_after for one in self.handlers if one.breaker], default=0.0) or _PAUSE_S

    def keep(self) -> None:
        """Extend the time-outs of what is in hand."""
        for deliveries in list(self._in_hand.values()):
            self.source.keep(deliveries, self.settings["visibility_timeout"])

    @property
    def busy(self) -> bool:
        """Whether a worker has events in hand."""
        return bool(self._in_hand)

    @property
    def unsettled(self) -> bool:
        """Whether events are in hand here, or wait for their retry."""
        return self.busy or bool(self._waiting)

    # --- one by one ------------------------------------------------------------------------------------------------

    def _one_by_one(self, deliveries: list[Delivery], stopped: Callable[[], bool]) -> None:
        held_keys: set[bytes | None] = set()
        for number, delivery in enumerate(deliveries):
            if stopped() or self._allowed() == 0:
                self.source.release(deliveries[number:])
                return
            if delivery.key in held_keys and self.settings["ordered"]:
                self.source.release([delivery])
            elif not self._handle(delivery):
                held_keys.add(delivery.key)

    def _handle(self, delivery: Delivery) -> bool:
        """Whether the delivery is dealt with (or given up); if not, it comes again."""
        decoded = self._decode(delivery)
        if isinstance(decoded, bool):
            return decoded
        _, envelope, event, handlers = decoded
        for handler in handlers:
            try:
                self._call(handler, event, envelope)
            except Exception as error:
                return self._failed(delivery, envelope, handler, error)
        self.source.ack((delivery,))
        self.handled += 1
        return True

    def _call(self, handler: Handler, event: Event, envelope: Envelope) -> None:
        with handling(envelope):
            if not handler.wants(event, envelope):
                return
            inbox = handler.inbox
            if inbox is None:
                self._guarded(handler, event, envelope)
            elif handler.own_transaction:
                with inbox.once(envelope) as first:
                    if first:
                        self._guarded(handler, event, envelope)
            elif not inbox.seen(envelope):
                self._guarded(handler, event, envelope)
                inbox.remember(envelope)

    def _guarded(self, handler: Handler, event: Any, envelope: Any) -> None:
        if handler.breaker is None:
            self._run(handler, event, envelope)
        else:
            with handler.breaker:
                self._run(handler, event, envelope)

    def _run(self, handler: Handler, event: Any, envelope: Any) -> None:
        try:
            result = handler.call(event, envelope)
            if type(result) is CoroutineType:  # of a function that is not async, as a lambda around one
                self._loop.run(result)
        except asyncio.CancelledError as error:  # of something that it waited for, and no Exception
            raise RuntimeError(CANCELLED) from error

    # --- async handlers --------------------------------------------------------------------------------------------

    async def _concurrently(self, deliveries: list[Delivery], stopped: Callable[[], bool]) -> None:
        """Different keys at once, those of one key in their order."""
        chains: dict[Any, list[Delivery]] = {}
        for delivery in deliveries:
            chains.setdefault(delivery.key if self.settings["ordered"] else delivery.id, []).append(delivery)
        if self.settings["copies"] == "subscriber" or any(handler.own_transaction for handler in self.handlers):
            chains = {None: deliveries}  # a connection has one transaction at a time
        await asyncio.gather(*(self._chain(chain, stopped) for chain in chains.values()))

    async def _chain(self, deliveries: list[Delivery], stopped: Callable[[], bool]) -> None:
        held_keys: set[bytes | None] = set()
        for number, delivery in enumerate(deliveries):
            if stopped() or self._allowed() == 0:
                self.source.release(deliveries[number:])
                return
            if delivery.key in held_keys and self.settings["ordered"]:
                self.source.release([delivery])
            elif not await self._handle_async(delivery):
                held_keys.add(delivery.key)

    async def _handle_async(self, delivery: Delivery) -> bool:
        decoded = self._decode(delivery)
        if isinstance(decoded, bool):
            return decoded
        _, envelope, event, handlers = decoded
        for handler in handlers:
            try:
                await self._call_async(handler, event, envelope)
            except Exception as error:
                return self._failed(delivery, envelope, handler, error)
        self.source.ack((delivery,))
        self.handled += 1
        return True

    async def _call_async(self, handler: Handler, event: Event, envelope: Envelope) -> None:
        if not handler.is_async:
            self._call(handler, event, envelope)
            return
        with handling(envelope):
            if not handler.wants(event, envelope):
                return
            inbox = handler.inbox
            if inbox is None:
                await self._guarded_async(handler, event, envelope)
            elif handler.own_transaction:
                with inbox.once(envelope) as first:
                    if first:
                        await self._guarded_async(handler, event, envelope)
            elif not inbox.seen(envelope):
                await self._guarded_async(handler, event, envelope)
                inbox.remember(envelope)

    async def _guarded_async(self, handler: Handler, event: Any, envelope: Any) -> None:
        if handler.breaker is None:
            await self._await(handler, event, envelope)
        else:
            async with handler.breaker:
                await self._await(handler, event, envelope)

    async def _await(self, handler: Handler, event: Any, envelope: Any) -> None:
        try:
            await handler.call(event, envelope)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # it is this one that is cancelled
                raise
            raise RuntimeError(CANCELLED) from error

    # --- batches ---------------------------------------------------------------------------------------------------

    def _batch(self, deliveries: list[Delivery], handler: Handler) -> None:
        wanted = self._wanted(deliveries, handler)
        if not wanted:
            return
        try:
            self._call_batch(wanted, handler)
        except Exception as error:
            self._split(wanted, handler, error)
        else:
            self.source.ack([delivery for delivery, *_ in wanted])
            self.handled += len(wanted)

    def _wanted(self, deliveries: list[Delivery], handler: Handler) -> list[Decoded]:
        """Those that the handler is to get now; the others are settled, or given back."""
        wanted: list[Decoded] = []
        held_keys: set[bytes | None] = set()
        for delivery in deliveries:
            if delivery.key in held_keys and self.settings["ordered"]:
                self.source.release([delivery])
                continue
            decoded = self._decode(delivery)
            new = decoded if isinstance(decoded, bool) else self._is_new(decoded, handler)
            if new is False:
                held_keys.add(delivery.key)
            elif new is None and not isinstance(decoded, bool):
                wanted.append(decoded)
        return wanted

    def _is_new(self, decoded: Decoded, handler: Handler) -> bool | None:
        """None: it is new. Otherwise whether it is dealt with; if not, it comes again."""
        delivery, envelope, event, _ = decoded
        try:
            if handler.wants(event, envelope) and (handler.inbox is None or not handler.inbox.seen(envelope)):
                return None
        except Exception as error:
            return self._failed(delivery, envelope, handler, error)
        self.source.ack((delivery,))
        return True

    def _call_batch(self, wanted: list[Decoded], handler: Handler) -> None:
        batch = [event for _, _, event, _ in wanted]
        envelopes = [envelope for _, envelope, _, _ in wanted]
        with handling(envelopes[-1]):
            if handler.is_async:
                self._loop.run(self._guarded_async(handler, batch, envelopes))
            else:
                self._guarded(handler, batch, envelopes)
        if handler.inbox is not None:
            handler.inbox.remember(*envelopes)

    def _split(self, wanted: list[Decoded], handler: Handler, error: Exception) -> None:
        """A batch that failed is handed over again one by one, so that only those fail that are to blame."""
        if len(wanted) == 1 or isinstance(error, BackPressureError):
            for delivery, envelope, *_ in wanted:
                self._failed(delivery, envelope, handler, error)
            return
        held_keys: set[bytes | None] = set()
        for one in wanted:
            delivery, envelope = one[0], one[1]
            if self._allowed() == 0 or (delivery.key in held_keys and self.settings["ordered"]):
                self.source.release([delivery])
                continue
            try:
                self._call_batch([one], handler)
            except Exception as failure:
                if not self._failed(delivery, envelope, handler, failure):
                    held_keys.add(delivery.key)
            else:
                self.source.ack((delivery,))
                self.handled += 1

    # --- decoding and failing --------------------------------------------------------------------------------------

    def _decode(self, delivery: Delivery) -> Decoded | bool:
        """True: it is settled, as nobody wants it or nobody can read it. False: it comes again."""
        try:
            envelope = Envelope.from_json(delivery.value)
            handlers = self._by_type.get(envelope.type)
            if handlers is None:
                handlers = self._find_handlers(envelope.type)
            if handlers:
                return delivery, envelope, envelope.event(), handlers
        except UnknownEventTypeError as error:
            if self._unknown == "dead-letter":
                self._bury(delivery, error, False)
                return True
        except InvalidEventError as error:
            self._bury(delivery, error, False)
            return True
        except Exception as error:  # an upcaster's, which may be mended as any handler may
            return self._failed(delivery, envelope, self.handlers[0], error)
        self.source.ack((delivery,))
        return True

    def _find_handlers(self, event_type: str) -> list[Handler]:
        event_class = registry.get(event_type)
        found = [handler for handler in self.handlers if handler.takes(event_class)]
        self._by_type[event_type] = found
        return found

    def _failed(self, delivery: Delivery, envelope: Envelope, handler: Handler, error: Exception) -> bool:
        """Whether that was its last attempt."""
        if isinstance(error, BackPressureError):
            self._waiting.add(delivery.id)
            self.source.release([delivery], max(error.retry_after, 0.001))
            return False
        self.failed += 1
        failures = delivery.failure_count + 1
        what = repr_of(error)  # not the error itself: a kept log record would keep its frames
        _log.warning(
            "%s failed on %s (%d): %s", handler.name, envelope.type, failures, what,
            extra={
                "message_id": envelope.message_id, "correlation_id": envelope.correlation_id, "type": envelope.type,
                "trace_id": envelope.metadata.get("traceId"), "group": self.name, "error": what,
            },
        )  # fmt: skip
        if handler.retry.gives_up(error, failures):
            self._bury(delivery, error, not isinstance(error, handler.retry.give_up_on))
            return True
        self._waiting.add(delivery.id)
        self.source.retry(delivery, handler.retry.delay_after(failures))
        return False

    def _bury(self, delivery: Delivery, error: Exception, exhausted: bool) -> None:
        self.dead += 1
        what = repr_of(error)
        told = {"message_id": delivery.id, "group": self.name, "error": what}
        _log.error("%s is dead-lettered by group %s: %r", delivery.id, self.name, what, extra=told)
        self.source.bury(delivery, trace_of(error), error, exhausted)
