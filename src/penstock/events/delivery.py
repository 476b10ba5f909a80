"""Events as a persistent subscription gives them out, or keeps them aside."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from penstock._native.message import Message
from penstock._native.records import Record
from penstock.error_text import line_of
from penstock.errors import StaleReceiptError
from penstock.events.erasure import Erasure
from penstock.events.store.record_format import VERSION
from penstock.events.store.recorded import RecordedEvent

if TYPE_CHECKING:
    from penstock.events.persistent_subscription import PersistentSubscription


_log = logging.getLogger("penstock.events")


class Delivery(RecordedEvent):
    """An event that was received and is to be settled: acknowledged, given back, or parked.

    `with delivery: handle(delivery.event)` acknowledges it, or gives it back as failed when the block raises.

    Of a subscription with `by_stream`: when one is given back (`nack`, `release`, a block that raises), those behind it
    in its stream that came with the same `receive` are given back with it, which is no failure of theirs. They are
    `settled` then; acknowledging or parking one, or a `with` block of it, raises `StaleReceiptError`.
    """

    __slots__ = ("_behind", "_given_back", "_message", "_subscription")

    def __init__(
        self, record: Record, erasure: Erasure, message: Message, subscription: PersistentSubscription
    ) -> None:
        super().__init__(record, erasure)
        self._message = message
        self._subscription = subscription
        self._behind: Delivery | None = None  # the next one of its stream, where order counts
        self._given_back = False  # because one before it was

    @property
    def delivery_count(self) -> int:
        """How many times it was received, this one included."""
        return self._message.delivery_count

    @property
    def failure_count(self) -> int:
        """How many times that failed before."""
        return self._message.failure_count

    @property
    def settled(self) -> bool:
        """Whether this object settled it, or it was given back with one before it."""
        return self._given_back or self._message.settled

    def ack(self) -> None:
        """It is done. Raises `StaleReceiptError` when it was received again, or given back, meanwhile."""
        self._check_held()
        self._settle(self._message.ack)

    def nack(self, reason: str | None = None, delay: float = 0.0) -> None:
        """It failed: it comes back (after `delay` seconds), or is parked when that was once too often."""
        if not self._given_back and self._settle(lambda: self._subscription._nack(self._message, reason, delay)):
            self._give_back_behind()

    def release(self) -> None:
        """Give it back, which counts as no failure."""
        if not self._given_back:
            self._settle(lambda: self._message.nack(failed=False))
            self._give_back_behind()

    def _settle(self, action: Callable[[], Any]) -> Any:
        """What it returns. A receipt that is stale says that somebody else has it, before those behind it."""
        settled = self._message.settled
        try:
            return action()
        except StaleReceiptError:
            if not settled:
                self._give_back_behind()
            raise

    def _give_back_behind(self) -> None:
        """Give those back that came with it, and are to come after it."""
        following = self._behind
        while following is not None:
            if not following.settled:
                following._given_back = True
                try:
                    following._message.nack(failed=False)
                except StaleReceiptError as error:
                    _log.debug("it came back before it was given back: %s", error)
            following = following._behind

    def _check_held(self) -> None:
        if self._given_back:
            raise StaleReceiptError(
                f"position {self.position} was given back, for an event before it in stream {self.stream!r} was; it "
                "comes again after that one"
            )

    def park(self, reason: str = "parked") -> None:
        """Put it aside until `replay_parked`; its stream goes on without it."""
        self._check_held()
        self._settle(lambda: self._subscription._park(self._message, reason))

    def extend(self, seconds: float) -> None:
        """Keep it from coming back for so many seconds from now."""
        self._check_held()
        self._message.extend(seconds)

    def __enter__(self) -> Self:
        self._check_held()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.settled:
            return
        if error is None:
            self.ack()
        elif isinstance(error, Exception):
            self.nack(line_of(error))
        else:
            self.release()


class ParkedEvent(RecordedEvent):
    """An event that was put aside."""

    __slots__ = ("parked_ms", "reason")

    def __init__(self, record: Record, erasure: Erasure, reason: str, parked_ms: int | None) -> None:
        super().__init__(record, erasure)
        self.reason = reason
        """Why."""
        self.parked_ms = parked_ms
        """When, in milliseconds since the epoch; None: it is not known."""


def event_record(message: Message) -> Record | None:
    """The record of an event; None: it is something else that the store keeps."""
    headers = message.headers
    if not any(name == VERSION for name, _ in headers):
        return None
    place = (message.topic, message.partition, message.offset, message.timestamp_ms)
    return Record(*place, message.key, message.value, headers)
