"""What native code may know of a class of events, so that plain events need not be decoded to be checked."""

from __future__ import annotations

from typing import Any

import msgspec.inspect as inspect

from penstock._native import shapes
from penstock._native.shapes import Shape

_PLAIN: dict[type, int] = {
    inspect.StrType: shapes.STR,
    inspect.IntType: shapes.INT,
    inspect.FloatType: shapes.FLOAT,
    inspect.BoolType: shapes.BOOL,
    inspect.NoneType: shapes.NONE,
    inspect.BytesType: shapes.BYTES,
    inspect.DateTimeType: shapes.DATETIME,
    inspect.DateType: shapes.DATE,
    inspect.UUIDType: shapes.UUID,
}
_LISTS = (inspect.ListType, inspect.VarTupleType)


def shape_of(cls: type) -> Shape | None:
    """The shape of a struct class whose decoder could be made; None: its objects have to be decoded to be checked."""
    return _shape(inspect.type_info(cls), ())


def _shape(info: inspect.Type, outer: tuple[type, ...]) -> Shape | None:
    """`outer`: the structs that it lies in. Bounds, tagged unions, enums and the like have no shape."""
    types = 0
    parts: dict[str, Any] = {}
    for part in info.types if isinstance(info, inspect.UnionType) else (info,):
        plain = _PLAIN.get(type(part), 0)
        types |= plain
        found: dict[str, Any] = {}
        if isinstance(part, _LISTS) and (part.min_length, part.max_length) == (None, None):
            found = {"items": _shape(part.item_type, outer)}
        elif isinstance(part, inspect.DictType) and part == inspect.DictType(inspect.StrType(), part.value_type):
            found = {"values": _shape(part.value_type, outer)}
        elif isinstance(part, inspect.StructType):
            found = _struct(part, outer)
        elif not plain or part != type(part)():
            return None
        if None in found.values() or parts.keys() & found:
            return None
        parts.update(found)
    return Shape(types, **parts)


def _struct(info: inspect.StructType, outer: tuple[type, ...]) -> dict[str, Any]:
    if info.cls in outer or hasattr(info.cls, "__post_init__"):
        return {"struct": None}
    fields = [(field.name, _shape(field.type, (*outer, info.cls))) for field in info.fields]
    return {"struct": None if any(shape is None for _, shape in fields) else info.cls, "fields": fields}
