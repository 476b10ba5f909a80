"""Arguments that many calls of this package have, checked in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from penstock import Broker
from penstock.errors import InvalidArgumentError, InvalidTypeError


def checked_text(name: str, value: object) -> str:
    """A str that is not empty and has a UTF-8 form. Raises `InvalidTypeError`, `InvalidArgumentError`."""
    if not isinstance(value, str) or not value:
        raise InvalidTypeError(f"{name} is {value!r}; a str that is not empty is needed")
    check_unicode(name, value)
    return value


def check_unicode(name: str, value: str) -> None:
    """Refuse a str without a UTF-8 form (half of a surrogate pair)."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{name} is {value!r}; valid Unicode is needed") from error


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
