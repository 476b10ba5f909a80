"""Values to JSON and back: arguments, results and signals. What comes back is the same whether live or replayed."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from penstock.errors import InvalidTypeError
from penstock.events.event import Event
from penstock.events.registry import registry

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_PLAIN = frozenset({str, int, float, bool, type(None)})
_BUILTIN = _PLAIN | {dict, list, tuple}
_TAG = b'{"$'


class _Typed(msgspec.Struct, rename={"type": "$type", "version": "$version", "data": "$data"}, omit_defaults=True):
    """A struct with its class: `module:Class`, or the type and version of an event."""

    type: str
    data: Any
    version: int = 0


class _TypedRaw(msgspec.Struct, rename={"type": "$type", "version": "$version", "data": "$data"}):
    type: str
    data: msgspec.Raw
    version: int = 0


_decode_typed = msgspec.json.Decoder(_TypedRaw).decode


def encode_value(what: str, value: Any) -> bytes:
    """JSON of a value; `InvalidTypeError`, naming `what`, when it has none."""
    try:
        if type(value) in _BUILTIN:
            return _encode(value)
        if isinstance(value, Event):
            return _encode(_Typed(value.event_type, value, value.event_version))
        if isinstance(value, msgspec.Struct):
            cls = type(value)
            return _encode(_Typed(f"{cls.__module__}:{cls.__qualname__}", value))
        return _encode(value)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InvalidTypeError(
            f"{what} is {type(value).__name__}, which is not serialisable: {error}; "
            "allowed is what msgspec writes as JSON"
        ) from error


def decode_value(raw: bytes | msgspec.Raw, wanted: Any = None) -> Any:
    """The value of a JSON text. `wanted`: the type to be made of what was no struct (default: as JSON has it)."""
    if bytes(memoryview(raw)[:3]) == _TAG:
        found = _decode_typed(raw)
        if found.version:
            return registry.decode(found.type, found.version, found.data)
        cls = _find_class(found.type)
        return _decode(found.data) if cls is None else msgspec.json.decode(found.data, type=cls)
    return _decode(raw) if wanted is None else msgspec.json.decode(raw, type=wanted)


def settled(value: Any, raw: bytes) -> Any:
    """The value as a replay will see it."""
    if type(value) in _PLAIN or isinstance(value, msgspec.Struct):
        return value
    return decode_value(raw) if raw.startswith(_TAG) else _decode(raw)


def _find_class(path: str) -> Any:
    """The class of a path if its module is loaded: nothing is imported because a journal says so."""
    module, _, name = path.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, msgspec.Struct) else None
