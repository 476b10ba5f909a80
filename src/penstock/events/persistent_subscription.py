"""Persistent subscriptions: consumers that share the events of a store, with acknowledgements.

A persistent subscription is a share group over the store's topic, so that no event is copied: what was received,
acknowledged, failed or parked is a word a group and event. Parked events are those that the group holds as dead; why,
and what it takes, is in an SQLite file of the store.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from penstock import Message, QueueConfig, ShareGroup
from penstock.errors import ClosedError, InvalidArgumentError, InvalidConfigError, InvalidTypeError, StaleReceiptError
from penstock.events.checks import check_unicode, checked_list, checked_text
from penstock.events.delivery import Delivery, ParkedEvent, event_record
from penstock.events.errors import UnknownSubscriptionError
from penstock.events.subscription import POSITION_MAX, EventFilter, checked_seconds
from penstock.events.subscription_file import SubscriptionFile
from penstock.storage.topic_config import check_topic_name

if TYPE_CHECKING:
    from penstock.events.store.event_store import EventStore

_log = logging.getLogger("penstock.events")
_DELIVERY = ("visibility_timeout", "max_receives", "retry_delay")
EXHAUSTED = "it failed as often as max_receives allows"


class SubscriptionInfo(NamedTuple):
    """A persistent subscription now."""

    name: str
    lag: int
    """Positions that are still to be received (or come back later), before filters."""
    in_flight: int
    """Received and not settled."""
    parked: int
    position: int
    """Everything up to here is settled (or parked)."""
    settings: dict[str, Any]
    """What it was made with."""


class PersistentSubscription:
    """Competing consumers of a store's events. Made by `EventStore.subscription`.

    What is received and not settled within `visibility_timeout` comes back: also when its consumer was killed. Safe for
    threads to share; any number of objects, in any number of processes.
    """

    def __init__(self, store: EventStore, name: str, settings: dict[str, Any], file: SubscriptionFile) -> None:
        self.name = name
        self._store = store
        self._file = file
        self._settings = settings
        self._wanted = filter_of(settings)
        options = {key: settings[key] for key in _DELIVERY}
        self._group: ShareGroup = store.broker.share_consumer(
            store.name, group_name(name), settings["after"], key_ordered=settings["by_stream"], **options
        )

    # --- receiving -------------------------------------------------------------------------------------------------

    def receive(
        self,
        max_events: int = 10,
        wait: float | None = 20.0,
        visibility_timeout: float | None = None,
        *,
        max_messages: int | None = None,
    ) -> list[Delivery]:
        """Up to `max_events`, as soon as there is one; [] when none came in `wait` seconds (None: for ever).

        `visibility_timeout`: seconds, default the subscription's. `max_messages`: `max_events` by the name that it has
        for queues. Raises `InvalidArgumentError`, `ClosedError`.
        """
        if max_messages is not None:
            max_events = max_messages
        elif type(max_events) is not int or max_events < 1:
            raise InvalidArgumentError(f"max_events is {max_events!r}; give an int from 1")
        clock = self._store.broker.clock
        if wait is not None:
            checked_seconds("wait", wait)
        deadline = None if wait is None else clock.monotonic() + wait
        left = wait
        while True:
            messages = self._group.receive(max_events, left, visibility_timeout)
            found = [delivery for message in messages if (delivery := self._wanted_one(message)) is not None]
            if found or not messages:
                if self._settings["by_stream"]:
                    _chain(found)
                return found
            left = None if deadline is None else max(0.0, deadline - clock.monotonic())

    def _wanted_one(self, message: Message) -> Delivery | None:
        """What was received, if it is wanted; what is not is settled."""
        record = event_record(message)
        if record is not None:
            delivery = Delivery(record, self._store._erasure, message, self)
            if self._wanted.matches(delivery):
                return delivery
        try:
            message.ack()
        except StaleReceiptError:  # its time-out passed here; whoever has it now settles it
            _log.debug("subscription %s: position %d was received again", self.name, message.offset + 1)
        return None

    def __iter__(self) -> Iterator[Delivery]:
        """Events one by one, for ever; ends when this is closed. Leave each by `with delivery:`, or settle it."""
        for message in self._group:
            delivery = self._wanted_one(message)
            if delivery is not None:
                yield delivery

    # --- settling --------------------------------------------------------------------------------------------------

    def ack(self, deliveries: Delivery | Iterable[Delivery]) -> list[Delivery]:
        """Acknowledge one or several; returns those that were received again since, and are not acknowledged."""
        messages = {delivery._message: delivery for delivery in _listed(deliveries)}
        return [messages[message] for message in self._group.ack_many(messages)]

    def nack(self, deliveries: Delivery | Iterable[Delivery], reason: str | None = None, delay: float = 0.0) -> None:
        """They failed, as `Delivery.nack`."""
        _check_reason(reason)
        for delivery in _listed(deliveries):
            delivery.nack(reason, delay)

    def release(self, deliveries: Delivery | Iterable[Delivery]) -> None:
        """Give them back, which counts as no failure."""
        for delivery in _listed(deliveries):
            delivery.release()

    def extend(self, deliveries: Delivery | Iterable[Delivery], seconds: float) -> None:
        """Keep them from coming back for so many seconds from now."""
        for delivery in _listed(deliveries):
            delivery.extend(seconds)

    def park(self, deliveries: Delivery | Iterable[Delivery], reason: str = "parked") -> None:
        """Put them aside until `replay_parked`."""
        _text(reason)
        for delivery in _listed(deliveries):
            delivery.park(reason)

    def _nack(self, message: Message, reason: str | None, delay: float) -> bool:
        """Whether it comes back."""
        _check_reason(reason)
        limit = self._settings["max_receives"]
        last = limit is not None and message.failure_count + 1 >= limit
        if last:
            self._check_open()
        message.nack(delay)
        if last:
            self._note(message, EXHAUSTED if reason is None else f"{EXHAUSTED}: {reason}")
        return not last

    def _park(self, message: Message, reason: str) -> None:
        text = _text(reason)
        self._check_open()
        message.reject()
        self._note(message, text)

    def _note(self, message: Message, reason: str) -> None:
        # After the event was parked: a death in between loses the reason, and no parked event.
        self._file.park(self.name, message.offset + 1, reason, self._store.broker.clock.time_ms())

    # --- parked events ---------------------------------------------------------------------------------------------

    def parked(self, limit: int | None = None) -> list[ParkedEvent]:
        """What was put aside, in the order of positions."""
        return [event for event, _ in self._parked(_checked_limit(limit))]

    def _parked(self, limit: int | None) -> list[tuple[ParkedEvent, Message]]:
        most = sys.maxsize if limit is None else limit
        found = []
        for message in self._group.peek("dead", most) if most else ():
            record = event_record(message)
            if record is None:
                continue
            reason, parked_ms = self._file.reason(self.name, record.offset + 1) or (EXHAUSTED, None)
            found.append((ParkedEvent(record, self._store._erasure, reason, parked_ms), message))
        return found

    def replay_parked(self, filter: Callable[[ParkedEvent], bool] | None = None, limit: int | None = None) -> int:
        """Let parked events (that `filter` accepts, at most `limit`) be received again, their failures forgotten; how
        many. Raises `InvalidTypeError`, `InvalidArgumentError`."""
        if filter is not None and not callable(filter):
            raise InvalidTypeError(f"filter is {filter!r}; a callable or None is needed")
        _checked_limit(limit)
        positions: list[int] = []
        for event, message in self._parked(None):
            if limit is not None and len(positions) >= limit:
                break
            if (filter is None or filter(event)) and self._group.revive(message):
                positions.append(event.position)
        self._file.unpark(self.name, positions)
        return len(positions)

    def discard_parked(self) -> int:
        """Settle all that is parked; how many there were."""
        positions = [event.position for event in self.parked()]
        count = self._group.purge("dead")
        self._file.unpark(self.name, positions)
        return count

    # --- life ------------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        """What parks an event needs the store's file."""
        if self._group.closed:
            raise ClosedError(f"subscription {self.name!r} was closed")

    def info(self) -> SubscriptionInfo:
        """How it stands now."""
        position = self._group.settled_to()
        stats = self._group.stats()
        lag = stats.ready + stats.delayed
        return SubscriptionInfo(self.name, lag, stats.in_flight, stats.dead, position, dict(self._settings))

    @property
    def closed(self) -> bool:
        """Whether it was closed here."""
        return self._group.closed

    def wakeup(self) -> None:
        """Make a blocked `receive` return now."""
        self._group.wakeup()

    def close(self) -> None:
        """End it here; what was received and not settled comes back in time. Closing the store does it as well. May be
        repeated."""
        self._group.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PersistentSubscription {self.name!r} to {self._store.name!r}>"


def open_subscription(
    store: EventStore, file: SubscriptionFile, name: str, given: dict[str, Any]
) -> PersistentSubscription:
    """The subscription of this name, made when there is none; `given`: the settings that the caller named."""
    checked_text("name", name)
    if not isinstance(given.get("by_stream", False), bool):
        raise InvalidTypeError(f"by_stream is {given['by_stream']!r}; a bool is needed")
    settings = file.settings(name)
    if settings is None:
        wanted = {**DEFAULTS, **given}
        if wanted["after"] == "end":
            wanted["after"] = store.position
        if type(wanted["after"]) is not int or not 0 <= wanted["after"] <= POSITION_MAX:
            raise InvalidArgumentError(f"after is {wanted['after']!r}; allowed are 'end' and a position from 0")
        check_topic_name(group_name(name))
        filter_of(wanted)
        config_of(wanted)
        settings = file.make(name, wanted, store.broker.clock.time_ms())
    for key, value in given.items():
        if key != "after" and settings[key] != value:
            raise InvalidConfigError(f"{key} is {value!r}; subscription {name!r} exists with {settings[key]!r}")
    return PersistentSubscription(store, name, settings, file)


def delete_subscription(store: EventStore, file: SubscriptionFile, name: str) -> None:
    """Forget a subscription with its state."""
    checked_text("name", name)
    if file.settings(name) is None:
        raise UnknownSubscriptionError(f"store {store.name!r} has no subscription {name!r}; it has {file.names()}")
    if group_name(name) in store.broker.share_groups(store.name):
        store.broker.delete_share_group(store.name, group_name(name))
    file.delete(name)


def group_name(name: str) -> str:
    """The share group of a subscription."""
    return f"subscription.{name}"


DEFAULTS: dict[str, Any] = {
    "after": 0,
    "types": [],
    "category": None,
    "stream": None,
    "tags": [],
    "visibility_timeout": 30.0,
    "max_receives": 5,
    "retry_delay": 0.0,
    "by_stream": False,
}


def config_of(settings: dict[str, Any]) -> QueueConfig:
    """How the share group of a subscription delivers."""
    given = {key: settings[key] for key in _DELIVERY}
    return QueueConfig().altered({**given, "fifo": settings["by_stream"]})


def filter_of(settings: dict[str, Any]) -> EventFilter:
    """Which events a subscription wants."""
    return EventFilter(settings["types"] or None, settings["category"], settings["stream"], settings["tags"] or None)


def _chain(deliveries: list[Delivery]) -> None:
    """Have each know the next one of its stream."""
    last: dict[str, Delivery] = {}
    for delivery in deliveries:
        before = last.get(delivery.stream)
        if before is not None:
            before._behind = delivery
        last[delivery.stream] = delivery


def _listed(deliveries: Delivery | Iterable[Delivery]) -> list[Delivery]:
    found = [deliveries] if isinstance(deliveries, Delivery) else checked_list("deliveries", deliveries)
    for delivery in found:
        if not isinstance(delivery, Delivery):
            raise InvalidTypeError(f"deliveries has {delivery!r}; what receive returned is needed")
    return found


def _checked_limit(limit: int | None) -> int | None:
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidArgumentError(f"limit is {limit!r}; None or an int from 0 is needed")
    return limit


def _check_reason(reason: object) -> None:
    """A str, or None."""
    if reason is not None:
        _text(reason)


def _text(reason: object) -> str:
    if not isinstance(reason, str):
        raise InvalidTypeError(f"reason is {reason!r}; a str is needed")
    check_unicode("reason", reason)
    return reason
