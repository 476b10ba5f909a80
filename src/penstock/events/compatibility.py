"""Whether a reader of one schema understands what a writer of another one wrote: by what their JSON may be.

In doubt it does not: what is not known to be understood is a problem.
"""

from __future__ import annotations

from typing import Any

import msgspec.inspect as inspect

MODES = ("backward", "forward", "full")
_WIDENING = (
    (inspect.IntType, inspect.FloatType),
    (inspect.IntType, inspect.DecimalType),
    (inspect.FloatType, inspect.DecimalType),
)
_TEXTS = (
    inspect.BytesType, inspect.DateTimeType, inspect.DateType, inspect.TimeType, inspect.TimeDeltaType,
    inspect.UUIDType, inspect.DecimalType,
)  # fmt: skip
_LISTS = (inspect.ListType, inspect.SetType, inspect.FrozenSetType, inspect.VarTupleType)
_LOWER, _UPPER = ("ge", "gt", "min_length"), ("le", "lt", "max_length")
_SAME = ("multiple_of", "pattern", "tz")
_Seen = frozenset[tuple[type, type]]


def problems_between(old: Any, new: Any, mode: str) -> list[str]:
    """What stands against the change from `old` to `new`; empty when it is compatible."""
    problems = []
    if mode in ("backward", "full"):
        problems += _problems(old, new)
    if mode in ("forward", "full"):
        problems += _problems(new, old)
    return list(dict.fromkeys(problems))


def _problems(writer: Any, reader: Any) -> list[str]:
    versions = f"when version {writer.event_version} is read as version {reader.event_version}"
    return [f"{problem} {versions}" for problem in _struct_problems(_struct(writer), _struct(reader), frozenset())]


def _struct(cls: Any) -> inspect.StructType:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return info


def _struct_problems(written: inspect.StructType, read: inspect.StructType, seen: _Seen) -> list[str]:
    mine = {field.encode_name: field for field in written.fields}
    its = {field.encode_name: field for field in read.fields}
    problems = []
    if (written.tag_field, written.tag, written.array_like) != (read.tag_field, read.tag, read.array_like):
        problems.append("the form of the struct (tag, array_like) changes")
    for name, field in its.items():
        if name not in mine:
            if field.required:
                problems.append(f"{name} is required but missing")
        elif not _understands(mine[name].type, field.type, seen):
            problems.append(f"{name} changes its type")
    if read.array_like and list(mine) != list(its)[: len(mine)]:
        problems.append("fields change their places in the list")
    if read.forbid_unknown_fields:
        problems += [f"{name} is forbidden but there" for name in mine if name not in its]
    return problems


def _understands(written: inspect.Type, read: inspect.Type, seen: _Seen) -> bool:
    written, read = _bare(written), _bare(read)
    if isinstance(read, (inspect.AnyType, inspect.RawType)):
        return True
    named = getattr(read, "cls", None)
    if named is not None and type(written) is type(read) and getattr(written, "cls", None) is named:
        return True  # and may hold itself: to compare what is in it might not end
    if isinstance(written, inspect.UnionType):
        return all(_understands(part, read, seen) for part in written.types)
    parts = read.types if isinstance(read, inspect.UnionType) else (read,)
    values = _values(written)
    if values is not None:
        return all(any(_takes(part, value) for part in parts) for value in values)
    if len(parts) > 1:
        return any(_understands(written, part, seen) for part in parts)
    if isinstance(written, inspect.StructType) and isinstance(read, inspect.StructType):
        pair = (written.cls, read.cls)
        return pair in seen or not _struct_problems(written, read, seen | {pair})
    if isinstance(written, (inspect.TupleType, *_LISTS)):
        return _takes_items(written, read, seen)
    if isinstance(written, inspect.DictType) and isinstance(read, inspect.DictType):
        both = ((written.key_type, read.key_type), (written.value_type, read.value_type))
        return all(_understands(*pair, seen) for pair in both) and _is_looser(written, read)
    if isinstance(written, _TEXTS) and read == inspect.StrType():
        return True
    widens = any(isinstance(written, narrow) and isinstance(read, wide) for narrow, wide in _WIDENING)
    is_one_kind = type(written) is type(read) and not hasattr(read, "cls") and not isinstance(read, inspect.DictType)
    return (widens or is_one_kind) and _is_looser(written, read)


def _bare(found: inspect.Type) -> inspect.Type:
    return _bare(found.type) if isinstance(found, inspect.Metadata) else found


def _values(found: inspect.Type) -> list[Any] | None:
    """The only values that there are of a type."""
    if isinstance(found, inspect.EnumType):
        return [member.value for member in found.cls]
    return list(found.values) if isinstance(found, inspect.LiteralType) else None


def _takes(read: inspect.Type, value: Any) -> bool:
    """Whether a type has this value of an enumeration or literal."""
    values = _values(_bare(read))
    if values is not None:
        return value in values
    return read == (inspect.StrType() if isinstance(value, str) else inspect.IntType())


def _takes_items(written: Any, read: inspect.Type, seen: _Seen) -> bool:
    is_fixed = isinstance(written, inspect.TupleType)
    items = written.item_types if is_fixed else (written.item_type,)
    if isinstance(read, inspect.TupleType):
        pairs = zip(items, read.item_types, strict=False)
        return is_fixed and len(items) == len(read.item_types) and all(_understands(*pair, seen) for pair in pairs)
    if not isinstance(read, _LISTS):
        return False
    if is_fixed:
        fits = (read.min_length or 0) <= len(items) <= (len(items) if read.max_length is None else read.max_length)
    else:
        fits = _is_looser(written, read)
    return fits and all(_understands(item, read.item_type, seen) for item in items)


def _is_looser(written: inspect.Type, read: inspect.Type) -> bool:
    """Whether the reader's constraints let through all that the writer's do."""
    for name in _LOWER + _UPPER:
        sign = 1 if name in _LOWER else -1
        limit = getattr(read, name, None)
        if limit is not None:
            own = [(getattr(written, one, None), one) for one in (_LOWER if sign > 0 else _UPPER)]
            strict = name in ("gt", "lt")
            if not any(
                bound is not None and (sign * bound > sign * limit or (bound == limit and (not strict or one == name)))
                for bound, one in own
            ):
                return False
    return all(getattr(read, name, None) in (None, getattr(written, name, None)) for name in _SAME)
