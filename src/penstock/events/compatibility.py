"""Whether a reader of one schema understands what a writer of another one wrote."""

from __future__ import annotations

from typing import Any

import msgspec.inspect as inspect

MODES = ("backward", "forward", "full")
_WIDENING = ((inspect.IntType, inspect.FloatType),)


def problems_between(old: Any, new: Any, mode: str) -> list[str]:
    """What stands against the change from `old` to `new`; empty when it is compatible."""
    problems = []
    if mode in ("backward", "full"):
        problems += _problems(old, new)
    if mode in ("forward", "full"):
        problems += _problems(new, old)
    return list(dict.fromkeys(problems))


def _problems(writer: Any, reader: Any) -> list[str]:
    written, read = _fields(writer), _fields(reader)
    versions = f"version {writer.event_version} is read as version {reader.event_version}"
    problems = []
    for name, field in read.items():
        if name not in written:
            if field.required:
                problems.append(f"{name} is required but missing when {versions}")
        elif not _understands(written[name].type, field.type):
            problems.append(f"{name} changes its type when {versions}")
    return problems


def _fields(cls: Any) -> dict[str, inspect.Field]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return {field.encode_name: field for field in info.fields}


def _understands(written: inspect.Type, read: inspect.Type) -> bool:
    if isinstance(read, inspect.AnyType) or written == read:
        return True
    if any(isinstance(written, narrow) and isinstance(read, wide) for narrow, wide in _WIDENING):
        return True
    if isinstance(written, inspect.UnionType):
        return all(_understands(part, read) for part in written.types)
    return isinstance(read, inspect.UnionType) and any(_understands(written, part) for part in read.types)
