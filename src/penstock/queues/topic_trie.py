"""Matching routing keys against topic patterns: words between dots, `*` for one word, `#` for any number."""

from __future__ import annotations

from typing import Generic, TypeVar

_T = TypeVar("_T")


class _Node(Generic[_T]):
    __slots__ = ("below", "found")

    def __init__(self) -> None:
        self.below: dict[str, _Node[_T]] = {}
        self.found: list[_T] = []


class TopicTrie(Generic[_T]):
    """Patterns with what they lead to. `match` visits only the branches that the key's words lead into."""

    def __init__(self) -> None:
        self._root: _Node[_T] = _Node()

    def add(self, pattern: str, found: _T) -> None:
        """From now on, keys that match `pattern` find `found`."""
        node = self._root
        for word in pattern.split(".") if pattern else []:
            node = node.below.setdefault(word, _Node())
        node.found.append(found)

    def match(self, routing_key: str) -> list[_T]:
        """Everything whose pattern matches, each pattern once."""
        words = routing_key.split(".") if routing_key else []
        result: list[_T] = []
        seen: set[tuple[int, int]] = set()
        stack = [(self._root, 0)]
        while stack:
            node, at = stack.pop()
            if (id(node), at) in seen:
                continue
            seen.add((id(node), at))
            below = node.below
            if at == len(words):
                result += node.found
            else:
                if (next_node := below.get(words[at])) is not None and words[at] not in ("*", "#"):
                    stack.append((next_node, at + 1))
                if (next_node := below.get("*")) is not None:
                    stack.append((next_node, at + 1))
            if (next_node := below.get("#")) is not None:
                stack += [(next_node, rest) for rest in range(at, len(words) + 1)]
        return result
