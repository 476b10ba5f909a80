"""Exchanges: messages are published with a routing key and headers, and stored in every queue whose binding matches.

Semantics as RabbitMQ's: one copy for each queue, however many bindings match and whatever way through other
exchanges; what matches nothing goes to the alternate exchange, or is dropped, or (`mandatory`) raises. Bindings are
durable, shared by all processes, and take effect with the next publish.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from penstock._native.builder import EncodedHeaders
from penstock._native.publisher import Publisher, Route
from penstock.errors import InvalidArgumentError, InvalidTypeError, UnroutableError
from penstock.queues.arguments import checked_items, checked_routing_key, encodable
from penstock.queues.dead_letter import EXCHANGE, ROUTING_KEY, Headers
from penstock.queues.matchers import Binding, check_binding
from penstock.queues.queue import Queue, checked_headers
from penstock.streams.topic import Topic

if TYPE_CHECKING:
    from penstock.queues.broker import Broker

_CACHED_ROUTES = 100_000
Destination = tuple[str, str]


class Exchange(Publisher):
    """An exchange of an open broker; made by `Broker.exchange`. Used by any number of threads."""

    def __init__(self, broker: Broker, name: str, kind: str, alternate: str | None) -> None:
        self._broker = broker
        self.name = name
        self.type = kind
        """direct, fanout, topic, headers or consistent-hash."""
        self.alternate = alternate
        """Name of the exchange for what matches nothing, or None."""
        self._routing_bell, self._catalog_bell = broker._routing_bell, broker._catalog_bell
        super().__init__(self._routing_bell, self._catalog_bell)

    # --- bindings --------------------------------------------------------------------------------------------------

    def bind(
        self, target: Queue | Exchange | Topic | str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Send what matches to a queue (or its name), an exchange, or a topic (whose share groups and consumers all
        see the one copy). May be repeated.

        `routing_key`: direct: equal; topic: words with `*` and `#`; consistent-hash: the weight; fanout, headers: not
        looked at. `arguments`: for headers exchanges, the headers to match, and `x-match`.

        Raises `InvalidArgumentError` (the default exchange has no bindings; a key or arguments that say nothing here),
        `UnknownQueueError`, `UnknownTopicError`.
        """
        kind, name = self._target(target)
        given = checked_arguments(arguments)
        if self.name == "":
            raise InvalidArgumentError("the default exchange routes by queue name and has no bindings")
        check_binding(self.type, routing_key, given)
        self._broker._queues.write(
            "INSERT OR IGNORE INTO bindings VALUES (?, ?, ?, ?, ?)",
            self.name, kind, name, routing_key, json.dumps(given, sort_keys=True),
        )  # fmt: skip
        self._broker._routing_bell.ring()

    def unbind(
        self, target: Queue | Exchange | Topic | str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> bool:
        """Take a binding back; False when there is none like it."""
        kind, name = self._target(target)
        checked_routing_key(routing_key)
        done = self._broker._queues.write(
            "DELETE FROM bindings WHERE exchange = ? AND kind = ? AND target = ? AND routing_key = ? AND arguments = ?",
            self.name, kind, name, routing_key, json.dumps(checked_arguments(arguments), sort_keys=True),
        )  # fmt: skip
        self._broker._routing_bell.ring()
        return bool(done)

    def bindings(self) -> list[Binding]:
        """The bindings of this exchange."""
        rows = self._broker._queues.read(
            "SELECT kind, target, routing_key, arguments FROM bindings WHERE exchange = ? ORDER BY target, routing_key",
            self.name,
        )
        return [Binding(kind, target, key, json.loads(arguments)) for kind, target, key, arguments in rows]

    def _target(self, target: object) -> Destination:
        if isinstance(target, Exchange):
            return "exchange", target.name
        if isinstance(target, Queue):
            return "queue", target.name
        if isinstance(target, Topic):
            return "topic", target.name
        if isinstance(target, str):
            return "queue", self._broker._existing_queue(target).name
        raise InvalidTypeError(
            f"target is {type(target).__name__}; a Queue, Exchange, Topic, or a queue's name is needed"
        )

    # --- publishing ------------------------------------------------------------------------------------------------

    def _publish(
        self, value: Any, routing_key: str, headers: Any, mandatory: bool, options: dict[str, Any]
    ) -> list[str]:
        pairs = [] if headers is None else checked_headers(headers)
        route = self._find_route(routing_key, pairs)
        if route.sends:
            pairs += self._marks(routing_key)
            return [send(value, headers=pairs, **options) for send in route.sends]
        if mandatory:
            raise UnroutableError(f"exchange {self.name!r} has no binding for routing key {routing_key!r}")
        return []

    def _marks(self, routing_key: str) -> Headers:
        """Headers that tell how a message came to a queue."""
        return [(EXCHANGE, self.name.encode()), (ROUTING_KEY, routing_key.encode("utf-8", "surrogateescape"))]

    def publish_many(self, messages: Iterable[tuple[Any, str]], mandatory: bool = False) -> int:
        """Publish (value, routing key) pairs; returns how many copies were stored.

        `messages`: any iterable of pairs. `mandatory`: see `publish`. Raises `InvalidTypeError` (no pair) and what
        `publish` raises; what came before is stored then.
        """
        stored = 0
        for message in checked_items("messages", messages):
            if not isinstance(message, (tuple, list)) or len(message) != 2:
                raise InvalidTypeError(f"messages has {message!r}; pairs (value, routing key) are needed")
            stored += len(self.publish(message[0], message[1], None, mandatory))
        return stored

    def routes(self, routing_key: str = "", headers: Any = None) -> list[Destination]:
        """Where a message would go, as (kind, name), kind "queue" or "topic"; nothing is published."""
        pairs = checked_headers(() if headers is None else headers)
        return self._broker._router().route(self.name, checked_routing_key(routing_key), dict(pairs))

    def _find_route(self, routing_key: str, headers: Headers) -> Route:
        known = self.known_route(checked_routing_key(routing_key))
        if known is not None:
            return known
        bells = (self._routing_bell.value, self._catalog_bell.value)
        router = self._broker._router()
        found = router.route(self.name, routing_key, dict(headers))
        sends = [self._broker._sender(kind, name) for kind, name in found]
        append, prefix = self._broker._plain_append(*found[0]) if len(found) == 1 else (None, "")
        route = Route(sends, append, prefix, EncodedHeaders(self._marks(routing_key)))
        if not router.uses_headers:
            self.keep_route(routing_key, route, *bells, _CACHED_ROUTES)
        return route

    def delete(self) -> None:
        """Delete the exchange with its bindings."""
        self._broker.delete_exchange(self.name)

    def __repr__(self) -> str:
        return f"<penstock.Exchange {self.name!r} type={self.type!r}>"


def checked_arguments(arguments: object) -> dict[str, Any]:
    """Binding arguments as a dict of plain values."""
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise InvalidTypeError(f"arguments is {arguments!r}; a dict with str keys is needed")
    for name in arguments:
        if not encodable(name):
            raise InvalidArgumentError(f"arguments has the name {name!r}; give names without surrogates")
    plain = {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in arguments.items()
    }
    for name, value in plain.items():
        if isinstance(value, str) and not encodable(value):
            raise InvalidArgumentError(f"arguments[{name!r}] is {value!r}; give a str without surrogates")
        if value is not None and not isinstance(value, (str, int, float, bool)):
            raise InvalidTypeError(f"arguments[{name!r}] is {value!r}; a str, bytes, number or None is needed")
    return plain
