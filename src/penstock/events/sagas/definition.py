"""A saga's definition: its name, its function, and the types of the function's arguments."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from types import FunctionType
from typing import Any

import msgspec

from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.events.checks import check_keywords, check_plain, is_async
from penstock.events.sagas.codec import decode_value, encode_value

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Definition:
    """Made by `Sagas.define`. Raises `InvalidTypeError` for what is no function of a saga and arguments."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        if not callable(function) or is_async(function):
            raise InvalidTypeError(f"saga {name!r} is {function!r}; a function (not async) of a saga is needed")
        check_plain(f"saga {name!r}", function)
        self.name = name
        self.function = function
        try:
            self._signature = inspect.signature(function)
        except ValueError as error:
            raise InvalidTypeError(f"saga {name!r} is {function!r}; {error}") from error
        check_keywords(f"saga {name!r}", function)
        self._types = self._argument_types()

    def _argument_types(self) -> list[Any]:
        try:
            hints = typing.get_type_hints(self.function)
        except (NameError, TypeError):  # names that exist for type checkers only: the values stay plain
            hints = {}
        names = list(self._signature.parameters)[1:]
        return [hints.get(name) if _usable(hints.get(name)) else None for name in names]

    def encode(self, args: tuple[Any, ...]) -> msgspec.Raw:
        """The arguments as a JSON array. Raises `InvalidArgumentError`, `InvalidTypeError`."""
        try:
            self._signature.bind(None, *args)
        except TypeError as error:
            raise InvalidArgumentError(f"arguments of saga {self.name!r}: {error}; given {len(args)}") from error
        parts = [
            encode_value(f"argument {number} of saga {self.name!r}", value) for number, value in enumerate(args, 1)
        ]
        return msgspec.Raw(b"[" + b",".join(parts) + b"]")

    def decode(self, raw: msgspec.Raw) -> list[Any]:
        """The arguments, of the types that the function's parameters name."""
        types = self._types
        known = len(types)
        return [
            decode_value(part, types[place] if place < known else None) for place, part in enumerate(_decode_list(raw))
        ]


def _usable(hint: Any) -> bool:
    if hint is None or hint is Any or isinstance(hint, str):
        return False
    try:
        msgspec.inspect.type_info(hint)
    except Exception:  # whatever msgspec makes of a type that it does not know
        return False
    return not (isinstance(hint, type) and msgspec.inspect.type_info(hint).__class__ is msgspec.inspect.CustomType)


def step_name(function: Any) -> str:
    """What a step is called unless it is named."""
    if type(function) is FunctionType:
        return function.__name__
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__
