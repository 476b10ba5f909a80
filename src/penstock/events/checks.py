"""Arguments that many calls of this package have, checked in one place."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from penstock import Broker
from penstock.errors import InvalidArgumentError, InvalidConfigError, InvalidTypeError

_encode = msgspec.json.Encoder().encode


def checked_text(name: str, value: object) -> str:
    """A str that is not empty and has a UTF-8 form; of a subclass, as the members of a `StrEnum` are, the plain one.
    Raises `InvalidTypeError`, `InvalidArgumentError`."""
    if not isinstance(value, str) or not value:
        raise InvalidTypeError(f"{name} is {value!r}; a str that is not empty is needed")
    check_unicode(name, value)
    return value if type(value) is str else str.__str__(value)


def check_unicode(name: str, value: str) -> None:
    """Refuse a str without a UTF-8 form (half of a surrogate pair)."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{name} is {value!r}; valid Unicode is needed") from error


def metadata_json(inherited: dict[str, Any], given: Any) -> bytes:
    """The JSON of an envelope's metadata: those that are carried on, and over them those that were given."""
    if not given:
        return _encode(inherited)
    if not isinstance(given, Mapping):
        raise InvalidTypeError(f"metadata is {given!r}; a dict is needed")
    try:
        return _encode({**inherited, **given})
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidTypeError(f"metadata is {given!r}, which has no JSON form: {error}") from error


def checked_clock(value: Any) -> Any:
    """A clock, or None."""
    if value is not None and not all(hasattr(value, name) for name in ("time_ms", "monotonic", "sleep")):
        raise InvalidTypeError(f"clock is {value!r}; a penstock.Clock or None is needed")
    return value


def checked_callable(name: str, value: Any) -> Any:
    """A callable, or None."""
    if value is not None and not callable(value):
        raise InvalidTypeError(f"{name} is {value!r}; a callable or None is needed")
    return value


def check_plain(name: str, function: Any) -> None:
    """Refuse a generator function, whose body would never run."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidTypeError(f"{name} is {function!r}, a generator function, which would never run; do not yield")


def is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine, as far as that can be told."""
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def check_keywords(name: str, function: Any) -> None:
    """Refuse a callable that needs arguments by keyword: it would never get them."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not say
        return
    needed = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    if needed:
        raise InvalidConfigError(
            f"{name} {function!r} needs {', '.join(needed)} by keyword; arguments are given by position only"
        )


def checked_list(name: str, value: Any) -> list[Any]:
    """The items of an iterable that is no text and no mapping."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidTypeError(f"{name} is {value!r}; a list is needed")
    return list(value)


def checked_broker(value: object) -> Broker:
    """A broker, as `penstock.open` gives it."""
    if not isinstance(value, Broker):
        raise InvalidTypeError(f"broker is {value!r}; what penstock.open returns is needed")
    return value
