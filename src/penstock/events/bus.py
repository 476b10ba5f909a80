"""The event bus: typed events published to a topic, and handlers that get them by type.

Thread safety: any thread publishes; handlers run in the bus's own threads. Process safety: any number of processes have
a bus over one topic; the handlers of one group share its events, each group gets all of them. Crash policy: an event
that was published is stored; one whose handler's process dies comes again at the visibility time-out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

from penstock import Broker, RedriveReport, TopicExistsError
from penstock.errors import InvalidArgumentError, InvalidConfigError, InvalidTypeError
from penstock.events.at_the_end import at_the_end
from penstock.events.bus_group import Group
from penstock.events.bus_handler import EventType, Handler, checked_function, checked_types
from penstock.events.bus_letters import DeadLetter, dead_letter
from penstock.events.bus_runner import Runner
from penstock.events.bus_source import CopySource, ShareSource, Source, dead_name, retry_name
from penstock.events.checks import check_keywords, check_unicode, checked_callable, checked_list, checked_text
from penstock.events.circuit_breaker import CircuitBreaker
from penstock.events.envelope import Envelope
from penstock.events.event import Event
from penstock.events.guard import checked_number
from penstock.events.inbox import Inbox
from penstock.events.retry import Retry
from penstock.storage.topic_config import check_topic_name

F = TypeVar("F", bound=Callable[..., Any])
Key = str | bytes | None
_log = logging.getLogger("penstock.bus")
_SHARED = ("ordered", "copies", "visibility_timeout", "start", "prefetch")
INBOX_FILE = "bus-inbox.sqlite3"


class EventBus(Runner):
    """Publishes events to a topic of a broker, and calls handlers for them.

    `source`: who publishes, as the envelopes say it. `topic` (default "events") is made when it does not exist, with
    `partitions` (default 1) and further topic configuration. `unknown_types`: what a group does with an event whose
    type no class is known for: "dead-letter" (default) or "skip". Close it, or use it as a context manager.

    Raises `InvalidConfigError` (the topic has another number of partitions), `InvalidTypeError`.
    """

    def __init__(
        self,
        broker: Broker,
        source: str = "penstock",
        topic: str = "events",
        partitions: int | None = None,
        unknown_types: str = "dead-letter",
        **topic_config: Any,
    ) -> None:
        if not isinstance(broker, Broker):
            raise InvalidTypeError(f"broker is {broker!r}; an open penstock.Broker is needed")
        source = checked_text("source", source)
        if unknown_types not in ("dead-letter", "skip"):
            raise InvalidConfigError(f"unknown_types is {unknown_types!r}; allowed are 'dead-letter', 'skip'")
        super().__init__(broker)
        self.source = source
        self._unknown = unknown_types
        self.topic = check_topic_name(topic)
        self._append = _topic(broker, self.topic, partitions, topic_config).append
        self._inbox: dict[str, Inbox] = {}

    # --- publishing ------------------------------------------------------------------------------------------------

    def publish(self, event: Event | Envelope, key: Key = None, **options: Any) -> Envelope:
        """Store an event; returns its envelope. Stored when this returns, as durable as the broker's `fsync`.

        `key`: events of one key are handled one after another, in their order (default: the message id, so that each
        stands for itself). `options`: those of `Envelope.wrap` (`correlation_id`, `causation_id`, `metadata`,
        `message_id`, `timestamp`, `source`); an envelope is published as it is. In a handler, correlation and causation
        are carried on from the event that is handled. Raises `InvalidTypeError`, `RecordTooLargeError`,
        `DiskFullError` (nothing was stored).
        """
        if self._closed:
            self._check_open()
        envelope = self._wrap(event, options)
        self._append(envelope.to_json(), _key_bytes(key, envelope))
        return envelope

    def publish_many(
        self,
        events: Iterable[Event | Envelope],
        keys: Iterable[Key] | Callable[[Any], Key] | None = None,
        **options: Any,
    ) -> list[Envelope]:
        """Store many events, faster than one by one; returns their envelopes. All are stored when this returns; an
        error leaves a beginning of them stored.

        `keys`: one for each (`InvalidArgumentError` otherwise), or a function of the event. `options`: see `publish`;
        they hold for all.
        """
        self._check_open()
        given = checked_list("events", events)
        if callable(keys):
            named: list[Key] = [keys(event) for event in given]
        else:
            named = [None] * len(given) if keys is None else checked_list("keys", keys)
        if len(named) != len(given):
            raise InvalidArgumentError(f"keys has {len(named)} items; as many as events are needed, {len(given)}")
        envelopes = [self._wrap(event, options) for event in given]
        if envelopes:
            values = [envelope.to_json() for envelope in envelopes]
            encoded = [_key_bytes(key, envelope) for key, envelope in zip(named, envelopes, strict=True)]
            with self.broker.producer() as producer:
                producer.send_many(self.topic, values, encoded)
        return envelopes

    def _wrap(self, event: Event | Envelope, options: dict[str, Any]) -> Envelope:
        if isinstance(event, Envelope):
            if options:
                raise InvalidArgumentError(f"{', '.join(options)} given with an Envelope, which has its own")
            return event
        return Envelope.wrap(event, **{"source": self.source, "clock": self.broker.clock, **options})

    # --- handlers --------------------------------------------------------------------------------------------------

    def on(
        self,
        *event_types: EventType,
        group: str | None = None,
        retry: Retry | None = None,
        idempotent: bool | Inbox = False,
        filter: Callable[..., Any] | None = None,
        ordered: bool = True,
        copies: str = "group",
        batch: bool = False,
        breaker: CircuitBreaker | None = None,
        prefetch: int = 256,
        visibility_timeout: float = 30.0,
        start: str | None = None,
    ) -> Callable[[F], F]:
        """Decorator of a handler: `handle(event)` or `handle(event, envelope)`, also async.

        `event_types`: Event classes (events of derived classes and other versions included), names of types, or "*".
        `group`: its handlers share the events, over all processes; each group gets all of them (default: one for this
        handler, named by the bus's source and the function). The processes of a group have the same handlers. A group
        that is new begins at `start`, "earliest" (default) or "latest".
        `retry`: what is done about exceptions (default `Retry()`: 5 attempts); in the end the event becomes a dead
        letter. `idempotent`: a message id that was dealt with is not handled again: True (remembered beside the topic
        after the handler returned) or an `Inbox` (the handler runs inside its transaction).
        `filter(event)` or `filter(event, envelope)`: False skips the event. `ordered`: the events of a key one after
        another. `copies`: "group", or "subscriber": one for each running bus, from its registration on, nothing
        remembered. `batch`: the handler gets a list of events (and one of envelopes); when it raises they are handed
        over one by one. `breaker`: while it is open, nothing is fetched. `prefetch`: most events a worker takes at
        once (fewer while handlers are slow). `visibility_timeout`: seconds after which the events of a process that
        died or hangs come again.

        Raises `InvalidTypeError`, `InvalidConfigError`.
        """
        self._check_open()
        types = checked_types(event_types)
        if group is not None:
            group = checked_text("group", group)
        if breaker is not None and not isinstance(breaker, CircuitBreaker):
            raise InvalidTypeError(f"breaker is {breaker!r}; a penstock.events.CircuitBreaker or None is needed")
        if start not in (None, "earliest", "latest"):
            raise InvalidConfigError(f"start is {start!r}; allowed are 'earliest', 'latest'")
        if retry is not None and not isinstance(retry, Retry):
            raise InvalidTypeError(f"retry is {retry!r}; a penstock.events.Retry or None is needed")
        if not isinstance(idempotent, (bool, Inbox)):
            raise InvalidTypeError(f"idempotent is {idempotent!r}; True, False or an Inbox is needed")
        if checked_callable("filter", filter) is not None:
            check_keywords("filter", filter)
        if copies not in ("group", "subscriber"):
            raise InvalidConfigError(f"copies is {copies!r}; allowed are 'group', 'subscriber'")
        if batch and isinstance(idempotent, Inbox):
            raise InvalidConfigError("batch is True and idempotent is an Inbox; use `with inbox.once` in the handler")
        settings = {
            "ordered": bool(ordered),
            "copies": copies,
            "visibility_timeout": checked_number("visibility_timeout", visibility_timeout, 0.05, 43_200),
            "start": start or ("latest" if copies == "subscriber" else "earliest"),
            "prefetch": checked_number("prefetch", prefetch, 1, 10_000, whole=True),
        }

        def register(function: F) -> F:
            handler = Handler(checked_function(function, batch), types, retry or Retry(), filter, breaker, batch)
            self._register(handler, group or f"{self.source}.{handler.name}", settings, idempotent)
            return function

        return register

    def _register(self, handler: Handler, name: str, settings: dict[str, Any], idempotent: bool | Inbox) -> None:
        with self._lock:
            self._check_open()
            group = self._groups.get(name)
            if group is None:
                source = self._source(name, settings)
                group = Group(name, source, settings, self._unknown, self.broker.clock, self._loop)
            for option in _SHARED:
                if group.settings[option] != settings[option]:
                    raise InvalidConfigError(
                        f"{option} is {settings[option]!r}; group {name!r} has {group.settings[option]!r}"
                    )
            if isinstance(idempotent, Inbox):
                handler.inbox, handler.own_transaction = idempotent, True
            elif idempotent:
                handler.inbox = self._own_inbox(f"{self.topic}/{name}/{handler.name}")
            if handler.breaker is not None:
                handler.breaker._follow(self.broker.clock)
            group.add(handler)
            self._groups[name] = group

    def _source(self, name: str, settings: dict[str, Any]) -> Source:
        if settings["copies"] == "subscriber":
            return CopySource(self.broker, self.topic, name, settings["start"])
        visibility = settings["visibility_timeout"]
        return ShareSource(self.broker, self.topic, name, settings["start"], settings["ordered"], visibility)

    def _own_inbox(self, name: str) -> Inbox:
        if name not in self._inbox:
            self._inbox[name] = Inbox(Path(self.broker.path) / INBOX_FILE, name, clock=self.broker.clock)
        return self._inbox[name]

    # --- dead letters ----------------------------------------------------------------------------------------------

    def dead_letters(self, group: str | None = None, max_letters: int = 1000) -> list[DeadLetter]:
        """What groups of this topic gave up (default: all groups), the oldest of each first. Takes nothing away."""
        self._check_open()
        checked_number("max_letters", max_letters, 0, 1 << 62, whole=True)
        if group is not None:
            checked_text("group", group)
        found: list[DeadLetter] = []
        for name in self._dead_groups() if group is None else [group]:
            queue_name = dead_name(self.topic, name)
            if len(found) < max_letters and queue_name in self.broker.queues():
                queue = self.broker.queue(queue_name)
                found += [dead_letter(message, name) for message in queue.peek("ready", max_letters - len(found))]
        return found

    def redrive(
        self,
        group: str,
        filter: Callable[[DeadLetter], bool] | None = None,
        edit: Callable[[DeadLetter], bytes] | None = None,
        max_letters: int | None = None,
        rate: float | None = None,
        dry_run: bool = False,
    ) -> RedriveReport:
        """Give a group's dead letters another try, by that group alone; what was moved.

        `filter(letter)` selects, `edit(letter)` returns other bytes to handle, `rate`: letters a second,
        `dry_run`: only say which. They come after what the group has now, not in their old place.
        """
        self._check_open()
        checked_text("group", group)
        if dead_name(self.topic, group) not in self.broker.queues():
            return RedriveReport()
        letters = self.broker.queue(dead_name(self.topic, group))
        again = retry_name(self.topic, group)
        if again not in self.broker.queues():
            fifo, most = letters.config.fifo, letters.config.max_message_bytes
            self.broker.queue(again, fifo=fifo, dead_letter=letters.name, retention=None, max_message_bytes=most)
        report = letters.redrive(
            None if filter is None else lambda message: filter(dead_letter(message, group)),
            None if edit is None else lambda message: edit(dead_letter(message, group)),
            again,
            max_letters, rate, dry_run,
        )  # fmt: skip
        if group in self._groups:
            self._groups[group].source.wakeup()
        return report

    def _dead_groups(self) -> list[str]:
        prefix, suffix = dead_name(self.topic, "\0").split("\0")
        names = [name for name in self.broker.queues() if name.startswith(prefix) and name.endswith(suffix)]
        return [name[len(prefix) : -len(suffix)] for name in names]

    # --- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop, and end the groups here; what else is called raises `ClosedError` then. The broker stays open. May be
        repeated. Raises what ended a worker, once all is closed."""
        with at_the_end(close=self._let_go):
            self.stop()

    def _let_go(self) -> None:
        self._closed = True
        groups, inboxes = list(self._groups.values()), list(self._inbox.values())
        self._groups, self._inbox = {}, {}
        for group in groups:
            group.source.close()
        for inbox in inboxes:
            inbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EventBus {self.topic!r} source={self.source!r} groups={self.groups}>"


def _topic(broker: Broker, name: str, partitions: int | None, config: dict[str, Any]) -> Any:
    if name not in broker.topics():
        try:
            return broker.create_topic(name, partitions=partitions or 1, **config)
        except TopicExistsError:
            _log.debug("topic %s was made by another process meanwhile", name)
    topic = broker.topic(name)
    if partitions is not None and partitions != topic.partitions:
        raise InvalidConfigError(f"partitions is {partitions}; topic {name!r} exists and has {topic.partitions}")
    return topic


def _key_bytes(key: Key, envelope: Envelope) -> bytes:
    if isinstance(key, str):
        check_unicode("key", key)
        return key.encode()
    if key is None:
        return envelope.message_id.encode()
    if isinstance(key, bytes):
        return key
    raise InvalidTypeError(f"key is {key!r}; a str, bytes or None is needed")
