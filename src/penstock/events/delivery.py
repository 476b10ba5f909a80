"""Events as a persistent subscription gives them out, or keeps them aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from penstock._native.message import Message
from penstock._native.records import Record
from penstock.error_text import line_of
from penstock.events.erasure import Erasure
from penstock.events.store.record_format import VERSION
from penstock.events.store.recorded import RecordedEvent

if TYPE_CHECKING:
    from penstock.events.persistent_subscription import PersistentSubscription


class Delivery(RecordedEvent):
    """An event that was received and is to be settled: acknowledged, given back, or parked.

    `with delivery: handle(delivery.event)` acknowledges it, or gives it back as failed when the block raises.
    """

    __slots__ = ("_message", "_subscription")

    def __init__(
        self, record: Record, erasure: Erasure, message: Message, subscription: PersistentSubscription
    ) -> None:
        super().__init__(record, erasure)
        self._message = message
        self._subscription = subscription

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
        """Whether this object settled it."""
        return self._message.settled

    def ack(self) -> None:
        """It is done. Raises `StaleReceiptError` when it was received again meanwhile."""
        self._message.ack()

    def nack(self, reason: str | None = None, delay: float = 0.0) -> None:
        """It failed: it comes back (after `delay` seconds), or is parked when that was once too often."""
        self._subscription._nack(self._message, reason, delay)

    def release(self) -> None:
        """Give it back, which counts as no failure."""
        self._message.nack(failed=False)

    def park(self, reason: str = "parked") -> None:
        """Put it aside until `replay_parked`."""
        self._subscription._park(self._message, reason)

    def extend(self, seconds: float) -> None:
        """Keep it from coming back for so many seconds from now."""
        self._message.extend(seconds)

    def __enter__(self) -> Self:
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
