"""Checking arguments that several calls share: texts, and iterables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from penstock.errors import InvalidArgumentError, InvalidTypeError


def checked_text(name: str, value: object, least: int = 1, most: int = 128) -> str:
    """A str of `least` to `most` characters that can be stored as UTF-8, or an error that says what is allowed."""
    if not isinstance(value, str):
        raise InvalidTypeError(f"{name} is {type(value).__name__}; a str is needed")
    if not least <= len(value) <= most or not encodable(value):
        raise InvalidArgumentError(
            f"{name} is {value!r}; give a str of {least} to {most} characters, without surrogates"
        )
    return value


def encodable(text: str) -> bool:
    """Whether a text can be stored as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_routing_key(value: object) -> str:
    """A routing key: a str of at most 255 bytes in UTF-8 (AMQP)."""
    if not isinstance(value, str):
        raise InvalidTypeError(f"routing_key is {type(value).__name__}; a str is needed")
    if len(value) > 255 or not encodable(value) or len(value.encode()) > 255:
        raise InvalidArgumentError(f"routing_key is {value[:300]!r}; give a str of at most 255 bytes in UTF-8")
    return value


def checked_items(name: str, items: Any) -> Iterable[Any]:
    """An iterable of items, and not one of the things that are iterable by accident."""
    if isinstance(items, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(items, Iterable):
        raise InvalidTypeError(f"{name} is {type(items).__name__}; an iterable of items is needed")
    return items
