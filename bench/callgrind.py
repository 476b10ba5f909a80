"""What callgrind dumped: instructions in all, and by the function that executed them."""

from __future__ import annotations

import collections
import re
from dataclasses import dataclass, field
from pathlib import Path

NAMED = re.compile(r"(ob|fn)=\((\d+)\)(?: (.*))?$")
DEFINED = re.compile(r"(cob|cfn)=\((\d+)\) (.*)$")
UNKNOWN = re.compile(r"0x[0-9a-f]+$")
CYTHON = re.compile(r"__pyx_[a-z_]+_(\d.*)$")
PACKAGES = 3  # parts of a name that are packages and module


@dataclass(slots=True)
class Dump:
    """One dump, by the name it was asked for with. `functions`: name to instructions of its own."""

    name: str
    total: int
    functions: collections.Counter[str] = field(default_factory=collections.Counter)


def dumps(directory: Path) -> list[Dump]:
    """Those in `directory` that were asked for, in their order."""
    found = []
    for path in sorted(directory.glob("out.*"), key=lambda path: int(path.suffix[1:])):
        text = path.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.M)
        total = re.search(r"^(?:summary|totals): (\d+)", text, re.M)
        if name and total:
            found.append(Dump(name[1], int(total[1]), _own_costs(text.splitlines())))
    return found


def _own_costs(lines: list[str]) -> collections.Counter[str]:
    """A name is given once and its number afterwards; the line after `calls=` is what the callee cost."""
    names: dict[tuple[str, str], str] = {}
    costs: collections.Counter[str] = collections.Counter()
    library = function = ""
    called = False
    for line in lines:
        if defined := DEFINED.match(line):
            names[defined[1][1:], defined[2]] = defined[3]
        elif named := NAMED.match(line):
            kind, number, name = named.groups()
            name = names.setdefault((kind, number), name or "")
            library, function = (name, function) if kind == "ob" else (library, name)
        elif line.startswith("calls="):
            called = True
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not called:
                costs[readable(function, library)] += int(line.split()[1])
            called = False
    return costs


def readable(function: str, library: str = "") -> str:
    """`Builder.append` for what Cython calls `__pyx_f_8penstock_7_native_7builder_7Builder_append`.

    Each part has its length before it, but for the last one, which may have a number there.
    """
    function = function.split("'")[0]
    if UNKNOWN.match(function):
        return Path(library).name
    cython = CYTHON.match(function)
    if cython is None:
        return function.rpartition("::")[2]
    rest, parts = cython[1], []
    while (length := re.match(r"\d+", rest)) and rest[length.end() + int(length[0]) :][:1] in ("_", ""):
        start = length.end()
        parts.append(rest[start : start + int(length[0])])
        rest = rest[start + int(length[0]) + 1 :]
    last = re.sub(r"^\d+", "", rest)
    return ".".join([*parts[PACKAGES:], *([last] if last else [])])
