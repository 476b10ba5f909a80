"""Which events one asks for, or does not want to have come: by type and by tag."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.events.checks import check_unicode
from penstock.events.event import Event


class Query:
    """Events of any of `types` that have all of `tags`; `a | b`: events that match one of two queries.

    `types`: event classes or names of types (default: of every type). `tags`: str (default: whatever the tags). At
    least one of both is needed. Raises `InvalidArgumentError`, `InvalidTypeError`.
    """

    __slots__ = ("items",)

    def __init__(self, types: Iterable[type[Event] | str] = (), tags: Iterable[str] = ()) -> None:
        names = frozenset(_type_name(item) for item in _listed("types", types))
        wanted = frozenset(check_tags(tags))
        if not names and not wanted:
            raise InvalidArgumentError("types and tags are empty; one is needed (read_all reads everything)")
        self.items: tuple[tuple[frozenset[str], frozenset[str]], ...] = ((names, wanted),)
        """(types, tags) of each alternative."""

    def __or__(self, other: Query) -> Query:
        if not isinstance(other, Query):
            return NotImplemented
        both = Query.__new__(Query)
        both.items = tuple(dict.fromkeys(self.items + other.items))
        return both

    def matches(self, event_type: str, tags: Collection[str]) -> bool:
        """Whether an event of this type with these tags is asked for."""
        for types, wanted in self.items:
            if (not types or event_type in types) and (not wanted or wanted.issubset(tags)):
                return True
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Query) and set(self.items) == set(other.items)

    def __hash__(self) -> int:
        return hash(frozenset(self.items))

    def __repr__(self) -> str:
        return " | ".join(f"Query(types={sorted(types)}, tags={sorted(tags)})" for types, tags in self.items)


def check_tags(tags: Iterable[str]) -> list[str]:
    """The tags as a list without repetitions, each a str that is not empty."""
    found = _listed("tags", tags)
    for tag in found:
        if not isinstance(tag, str) or not tag:
            raise InvalidTypeError(f"tags has {tag!r}; each has to be a str that is not empty")
        check_unicode("tag", tag)
    return list(dict.fromkeys(found))


def _listed(name: str, items: Any) -> list[Any]:
    if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        raise InvalidTypeError(f"{name} is {items!r}; a list is needed")
    return list(items)


def _type_name(item: type[Event] | str) -> str:
    if isinstance(item, str) and item:
        check_unicode("type", item)
        return item
    if isinstance(item, type) and issubclass(item, Event):
        return item.event_type
    raise InvalidTypeError(f"types has {item!r}; each has to be an Event class or a str that is not empty")
