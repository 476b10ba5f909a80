"""What a foreign exception says, as text that can be stored: valid Unicode, of a bounded length, whatever it is.

Messages may hold halves of surrogate pairs (file names do), be megabytes long, or raise when they are asked for.
"""

from __future__ import annotations

import traceback

LINE_CHARACTERS_MAX = 2_000
TRACE_CHARACTERS_MAX = 16_000


def line_of(error: BaseException) -> str:
    """Type and message."""
    try:
        text = str(error)
    except Exception as failure:  # of a class that is not ours
        text = f"<no message: str() raised {type(failure).__name__}>"
    return storable(f"{type(error).__name__}: {text}", LINE_CHARACTERS_MAX)


def repr_of(error: BaseException) -> str:
    """The repr, for logs."""
    try:
        text = repr(error)
    except Exception as failure:  # of a class that is not ours
        text = f"<{type(error).__name__}: repr() raised {type(failure).__name__}>"
    return storable(text, LINE_CHARACTERS_MAX)


def trace_of(error: BaseException) -> str:
    """The traceback."""
    return storable("".join(traceback.format_exception(error)), TRACE_CHARACTERS_MAX)


def storable(text: str, characters_max: int) -> str:
    """The text without what has no UTF-8 form, and without its middle when it is too long."""
    if len(text) > characters_max:
        half = characters_max // 2
        text = f"{text[:half]} [{len(text) - 2 * half} characters left out] {text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()
