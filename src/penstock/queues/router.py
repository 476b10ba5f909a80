"""Where messages go: all exchanges and bindings of a directory, as of one moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from penstock.queues.matchers import Binding, Matcher, make_matcher
from penstock.queues.queue_store import QueueStore

Destination = tuple[str, str]


class Router:
    """Routes by the exchanges in the store when it was made. Immutable, so that any thread may use it."""

    def __init__(self, store: QueueStore) -> None:
        bindings: dict[str, list[Binding]] = {}
        for exchange, kind, target, routing_key, arguments in store.read("SELECT * FROM bindings"):
            bindings.setdefault(exchange, []).append(Binding(kind, target, routing_key, json.loads(arguments)))
        rows = store.read("SELECT name, type, alternate FROM exchanges")
        self._matchers: dict[str, Matcher] = {
            name: make_matcher(kind, bindings.get(name, [])) for name, kind, _ in rows
        }
        self._alternates: dict[str, str | None] = {name: alternate for name, _, alternate in rows}
        self._queues = {name for (name,) in store.read("SELECT name FROM queues")}
        self.uses_headers = any(kind == "headers" for _, kind, _ in rows)
        """Whether a route may depend on more than the routing key."""

    def route(self, exchange: str, routing_key: str, headers: Mapping[str, Any]) -> list[Destination]:
        """Queues and topics of a message, each once, in the order in which they were found."""
        if exchange == "":
            return [("queue", routing_key)] if routing_key in self._queues else []
        found: dict[Destination, None] = {}
        visited: set[str] = set()
        waiting = [exchange]
        while waiting:
            name = waiting.pop()
            if name in visited or name not in self._matchers:
                continue
            visited.add(name)
            matched = self._matchers[name].match(routing_key, headers)
            if not matched and self._alternates[name] is not None:
                waiting.append(str(self._alternates[name]))
            for kind, target in matched:
                if kind == "exchange":
                    waiting.append(target)
                else:
                    found[kind, target] = None
        return list(found)
