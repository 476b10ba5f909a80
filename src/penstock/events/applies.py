"""`@applies(OrderPlaced)`: which method of an aggregate or a projection takes which event.

The decorated methods may all be called `_`: the namespace of their class keeps each of them.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Callable
from typing import Any, TypeVar

from penstock.errors import InvalidTypeError
from penstock.events.checks import check_plain, is_async
from penstock.events.event import Event, EventMeta

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__applies__"
Applier = Callable[..., Any]


def applies(*event_classes: type[Event]) -> Callable[[F], F]:
    """Decorator of the method that takes events of these classes (and of classes derived from them).

    A derived class inherits the methods, and replaces those that it decorates with the same event. Raises
    `InvalidTypeError`.
    """
    for given in event_classes or (None,):
        if not isinstance(given, EventMeta):
            raise InvalidTypeError(f"applies got {given!r}; Event classes are needed")

    def mark(function: F) -> F:
        if not inspect.isfunction(function):
            raise InvalidTypeError(f"applies decorates {function!r}; a method is needed")
        check_plain("what applies decorates", function)
        if is_async(function):
            raise InvalidTypeError(f"applies decorates {function!r}, which is async and would not be awaited")
        setattr(function, _MARK, (*getattr(function, _MARK, ()), *event_classes))
        return function

    return mark


class _Namespace(dict[str, Any]):
    """The body of a class; remembers what was decorated, also when another definition takes its name."""

    def __init__(self) -> None:
        super().__init__()
        self.marked: list[tuple[str, Applier]] = []

    def __setitem__(self, name: str, value: Any) -> None:
        if getattr(value, _MARK, None) is not None:
            self.marked.append((name, value))
        super().__setitem__(name, value)


class AppliesMeta(ABCMeta):
    """Metaclass of classes with `@applies` methods. `applier_of` finds them."""

    _own_appliers: list[tuple[str, Applier]]
    _found_appliers: dict[type, Applier | None]

    @classmethod
    def __prepare__(mcls, name: str, bases: tuple[type, ...], /, **options: Any) -> _Namespace:
        return _Namespace()

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **options: Any) -> Any:
        cls = super().__new__(mcls, name, bases, dict(namespace), **options)
        if isinstance(namespace, _Namespace):
            cls._own_appliers = namespace.marked
        else:  # the class was made by a call
            cls._own_appliers = [item for item in namespace.items() if getattr(item[1], _MARK, None) is not None]
        cls._found_appliers = {}
        return cls


def appliers(cls: type) -> dict[type[Event], Applier]:
    """The methods of a class by the event classes that they are decorated with, inherited ones included."""
    table: dict[type[Event], Applier] = {}
    for base in reversed(cls.__mro__):
        for name, function in vars(base).get("_own_appliers", ()):
            named = vars(base).get(name) is function and name != "_"
            for event_class in getattr(function, _MARK):
                table[event_class] = getattr(cls, name) if named else function  # a name may be overridden
    return table


def applier_of(cls: AppliesMeta, event_class: type[Event]) -> Applier | None:
    """The function that takes events of this class, to be called with the object first; None: nobody wants them.

    The nearest decorated base of `event_class`, else one decorated with another version of the same type.
    """
    found = cls._found_appliers
    if event_class not in found:
        table = appliers(cls)
        nearest = next((table[base] for base in event_class.__mro__ if base in table), None)
        if nearest is None:
            same = (table[other] for other in table if other.event_type == getattr(event_class, "event_type", None))
            nearest = next(same, None)
        found[event_class] = nearest
    return found[event_class]
