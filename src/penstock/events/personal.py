"""Which fields of an event are personal, and whose they are: declared by its class.

    class CustomerRegistered(Event, subject="customer:{customer_id}", personal=("name", "email")):
        customer_id: str
        name: str
        email: str | None = None

or, in place of `personal=`, by the type: `name: Personal[str]`.
"""

from __future__ import annotations

import string
from typing import Annotated, Any, TypeVar, get_args

import msgspec

from penstock.errors import InvalidArgumentError

T = TypeVar("T")
FORGOTTEN = "[forgotten]"


class PersonalMarker:
    """What `Personal[...]` puts on a type."""

    def __repr__(self) -> str:
        return "Personal"


_MARKER = PersonalMarker()
Personal = Annotated[T, _MARKER]
"""Marks the type of an event's field as personal: `name: Personal[str]`."""


class PersonalFields:
    """What is personal in the events of a class."""

    def __init__(self, cls: type[msgspec.Struct], subject: str, fields: list[Any]) -> None:
        if cls.__struct_config__.array_like:
            raise InvalidArgumentError(
                f"{cls.__name__} is array_like: its fields have no names under which to be sealed"
            )
        self.class_name = cls.__name__
        self.names = tuple(field.encode_name for field in fields)
        """The fields, as they are called on the wire."""
        self.forgotten = {field.encode_name: _forgotten_value(cls, field) for field in fields}
        """What is read in their place once the subject is forgotten (JSON values)."""
        self._template = subject if "{" in subject else f"{{{subject}}}"
        known = set(cls.__struct_fields__)
        asked = [name for _, name, _, _ in string.Formatter().parse(self._template) if name is not None]
        unknown = [name for name in asked if name not in known]
        if unknown or not asked:
            raise InvalidArgumentError(
                f"subject of {cls.__name__} is {subject!r}; allowed is a field, or a text with fields in braces, of "
                f"{', '.join(sorted(known))}"
            )
        self._asked = asked

    def subject_of(self, event: msgspec.Struct) -> str:
        """Whose data an event has. Raises `InvalidArgumentError`."""
        values = {name: getattr(event, name) for name in self._asked}
        for name, value in values.items():
            if value is None or value == "":
                raise InvalidArgumentError(f"{name} of {self.class_name} is {value!r}; it has to name a subject")
        return self._template.format(**values)


_found: dict[type, PersonalFields | None] = {}


def personal_fields(cls: type) -> PersonalFields | None:
    """What is personal in the events of a class; None: nothing. Raises `InvalidArgumentError` for a declaration that
    cannot be kept."""
    try:
        return _found[cls]
    except KeyError:
        found = _found[cls] = _declared(cls)
        return found


def _declared(cls: Any) -> PersonalFields | None:
    named = frozenset(cls.event_personal)
    every = msgspec.structs.fields(cls)
    unknown = named - {field.name for field in every}
    if unknown:
        raise InvalidArgumentError(f"personal of {cls.__name__} has {sorted(unknown)}, which are no fields of it")
    fields = [field for field in every if field.name in named or _is_marked(field.type)]
    if not fields:
        return None
    if cls.event_subject is None:
        raise InvalidArgumentError(
            f"{cls.__name__} has personal fields and no subject; add subject=... to say whose they are"
        )
    return PersonalFields(cls, cls.event_subject, fields)


def _is_marked(declared: Any) -> bool:
    return _MARKER in getattr(declared, "__metadata__", ())


def _forgotten_value(cls: type, field: Any) -> Any:
    """None where the type allows it, else "[forgotten]" where it allows that, else the default."""
    candidates = [None, FORGOTTEN]
    if field.default is not msgspec.NODEFAULT:
        candidates.append(field.default)
    elif field.default_factory is not msgspec.NODEFAULT:
        candidates.append(field.default_factory())
    for candidate in candidates:
        value = msgspec.to_builtins(candidate)
        try:
            msgspec.convert(value, field.type)
        except msgspec.ValidationError:
            continue
        return value
    kind = get_args(field.type)[0] if _is_marked(field.type) else field.type
    raise InvalidArgumentError(
        f"{field.name} of {cls.__name__} is personal, and its type {kind!r} allows neither None nor {FORGOTTEN!r}: "
        "let it be optional, or give it a default, which is read in its place once it is forgotten"
    )
