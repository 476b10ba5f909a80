"""The part of an event store that others follow."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, cast

from penstock.events.store.arguments import checked_int
from penstock.events.subscription import EventFilter, Subscription, Types, checked_seconds
from penstock.events.subscription_file import SubscriptionFile

if TYPE_CHECKING:
    from penstock.events.persistent_subscription import PersistentSubscription
    from penstock.events.store.core import Core
    from penstock.events.store.event_store import EventStore


class Subscribing:
    """Subscriptions; a base of `EventStore`."""

    _core: Core
    _subscription_file: SubscriptionFile
    _followers: weakref.WeakSet[Subscription | PersistentSubscription]

    def subscribe(
        self,
        after: int = 0,
        types: Types = None,
        category: str | None = None,
        stream: str | None = None,
        tags: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> Subscription:
        """The events stored after position `after` (default 0: all; `store.position`: only what comes), and then those
        that come, for ever: each once, in the order of positions. An iterator and an async iterator.

        `types` (classes or names, any of them), `category` or `stream`, `tags` (all of them): only such events.
        `timeout`: iterating ends after so many seconds without an event (default: never), and may be begun again.
        Raises `InvalidArgumentError`, `InvalidTypeError`.
        """
        self._core.check_open()
        wanted = EventFilter(types, category, stream, tags)
        seconds = None if timeout is None else checked_seconds("timeout", timeout)
        found = Subscription(cast("EventStore", self), wanted, checked_int("after", after), seconds)
        self._followers.add(found)
        return found

    def subscription(
        self,
        name: str,
        after: int | Literal["end"] | None = None,
        types: Types = None,
        category: str | None = None,
        stream: str | None = None,
        tags: Iterable[str] | None = None,
        visibility_timeout: float | None = None,
        max_receives: int | None = None,
        retry_delay: float | None = None,
        by_stream: bool | None = None,
    ) -> PersistentSubscription:
        """The persistent subscription of this name, made when there is none: consumers share its events, and settle
        each (`ack`, `nack`, `park`).

        Where it is new: `after`: the position to begin behind (default 0; "end": only what comes). `types`,
        `category` or `stream`, `tags`: only such events. `visibility_timeout` (seconds, default 30): what is not
        settled by then comes back. `max_receives` (default 5): so often may it fail before it is parked.
        `retry_delay` (seconds, default 0): it comes back after that times its failures. `by_stream` (default False):
        the events of a stream are given out one after another, in their order; one `receive` may give several, of which
        one that is given back takes those behind it with it.
        Settings stay; another value for an existing one is an `InvalidConfigError` (but for `after`).
        """
        from penstock.events.persistent_subscription import open_subscription  # it builds on the store

        given: dict[str, Any] = {
            "after": after,
            "category": category,
            "stream": stream,
            "visibility_timeout": visibility_timeout,
            "max_receives": max_receives,
            "retry_delay": retry_delay,
            "by_stream": by_stream,
        }
        given = {key: value for key, value in given.items() if value is not None}
        described = EventFilter(types, None, None, tags).describe()
        given.update({key: described[key] for key in ("types", "tags") if described[key]})
        self._core.check_open()
        found = open_subscription(cast("EventStore", self), self._subscription_file, name, given)
        self._followers.add(found)
        return found

    def subscriptions(self) -> list[str]:
        """The names of the persistent subscriptions."""
        self._core.check_open()
        return self._subscription_file.names()

    def delete_subscription(self, name: str) -> None:
        """Delete a persistent subscription and what it knows; consumers of it have to be closed before. Raises
        `UnknownSubscriptionError`."""
        from penstock.events.persistent_subscription import delete_subscription

        self._core.check_open()
        delete_subscription(cast("EventStore", self), self._subscription_file, name)
