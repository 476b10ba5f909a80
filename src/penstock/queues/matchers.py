"""How each type of exchange chooses among its bindings, as RabbitMQ does."""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from penstock.errors import InvalidArgumentError
from penstock.queues.arguments import checked_routing_key
from penstock.queues.topic_trie import TopicTrie

EXCHANGE_TYPES = ("direct", "fanout", "topic", "headers", "consistent-hash")
X_MATCHES = ("all", "any", "all-with-x", "any-with-x")
_RING_POINTS = 64  # of a binding of weight 1


@dataclass(frozen=True, slots=True)
class Binding:
    """From an exchange to a queue, topic or exchange."""

    kind: str
    target: str
    routing_key: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def destination(self) -> tuple[str, str]:
        """What it leads to: (kind, name)."""
        return self.kind, self.target


class Matcher(Protocol):
    """The bindings of one exchange, ready for matching."""

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Destinations of a message; the same one may come twice."""


class _Direct:
    def __init__(self, bindings: list[Binding]) -> None:
        self._found: dict[str, list[tuple[str, str]]] = {}
        for binding in bindings:
            self._found.setdefault(binding.routing_key, []).append(binding.destination)

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> list[tuple[str, str]]:
        return self._found.get(routing_key, [])


class _Fanout:
    def __init__(self, bindings: list[Binding]) -> None:
        self._all = [binding.destination for binding in bindings]

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> list[tuple[str, str]]:
        return self._all


class _Topic:
    def __init__(self, bindings: list[Binding]) -> None:
        self._trie: TopicTrie[tuple[str, str]] = TopicTrie()
        for binding in bindings:
            self._trie.add(binding.routing_key, binding.destination)

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> list[tuple[str, str]]:
        return self._trie.match(routing_key)


class _Headers:
    def __init__(self, bindings: list[Binding]) -> None:
        self._bindings = [(binding.destination, dict(binding.arguments)) for binding in bindings]

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> list[tuple[str, str]]:
        return [destination for destination, arguments in self._bindings if headers_match(arguments, headers)]


class _ConsistentHash:
    """Each binding has as many points on a ring as its weight (the binding's routing key) asks for."""

    def __init__(self, bindings: list[Binding]) -> None:
        points = []
        for binding in bindings:
            for number in range(int(binding.routing_key) * _RING_POINTS):
                points.append((_hash(f"{binding.kind}/{binding.target}/{number}"), binding.destination))
        points.sort()
        self._places = [place for place, _ in points]
        self._found = [destination for _, destination in points]

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> list[tuple[str, str]]:
        if not self._places:
            return []
        at = bisect.bisect_left(self._places, _hash(routing_key)) % len(self._places)
        return [self._found[at]]


def _hash(text: str) -> int:
    value = zlib.crc32(text.encode("utf-8", "surrogateescape"))
    return (value * 0x9E3779B97F4A7C15) >> 16 & 0xFFFFFFFF


def headers_match(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    """RabbitMQ's rule: `x-match` is all (default), any, all-with-x or any-with-x; names that begin with `x-` count
    only for the latter two; an argument of None asks only that the header is there."""
    kind = arguments.get("x-match", "all")
    with_x = kind.endswith("-with-x")
    wanted = {
        name: value for name, value in arguments.items() if name != "x-match" and (with_x or not name.startswith("x-"))
    }
    hits = (
        name in headers and (value is None or _text(headers[name]) == _text(value)) for name, value in wanted.items()
    )
    return any(hits) if kind.startswith("any") else all(hits)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else str(value)


_MATCHERS: dict[str, Callable[[list[Binding]], Matcher]] = {
    "direct": _Direct,
    "fanout": _Fanout,
    "topic": _Topic,
    "headers": _Headers,
    "consistent-hash": _ConsistentHash,
}


def make_matcher(kind: str, bindings: list[Binding]) -> Matcher:
    """The matcher of an exchange of a type."""
    return _MATCHERS[kind](bindings)


def check_binding(kind: str, routing_key: object, arguments: Mapping[str, Any]) -> None:
    """Refuse a binding that an exchange of this type cannot have."""
    key = checked_routing_key(routing_key)
    if kind == "consistent-hash" and not (key.isascii() and key.isdigit() and 1 <= int(key) <= 1000):
        raise InvalidArgumentError(
            f"routing_key is {routing_key!r}; a consistent-hash exchange needs the weight, '1' to '1000'"
        )
    if kind == "headers" and arguments.get("x-match", "all") not in X_MATCHES:
        raise InvalidArgumentError(
            f"x-match is {arguments['x-match']!r}; allowed are {', '.join(map(repr, X_MATCHES))}"
        )
