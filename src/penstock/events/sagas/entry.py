"""What stands in the topic of sagas: one JSON object a record, the saga's id as its key.

Commands come from anybody (`start signal cancel retry`); everything else is written by the owner of the partition, told
by `by`, and numbered per saga by `seq`, so that applying an entry twice is noticed.

| kind | what |
|---|---|
| start | `name` of the definition, `value` the arguments, `correlation` |
| signal | `name`, `value` |
| cancel, retry | |
| step | operation `op` finished: `name`, `value` its result |
| attempt | a step raised and is tried again at `due` |
| gaveup | a step failed for good; `undo`: its effect happened all the same |
| wait, woken, expired | waits until `due` (0: for ever); `signal` that it got, with `value`; or time ran out |
| timer | sleeps until `due` |
| failed | compensation begins; `status` in which the saga will end |
| undone, undo_attempt | the compensation of `op` is done; or raised and is tried again at `due` |
| end | `status`, and `value` the result |
| snapshot | `value`: the whole state, so that older records are not needed any more |
"""

from __future__ import annotations

import msgspec

COMMANDS = frozenset({"start", "signal", "cancel", "retry"})
TOLD = COMMANDS | {
    "step", "attempt", "gaveup", "wait", "woken", "expired", "timer", "failed", "undone", "undo_attempt", "end"
}  # fmt: skip
"""All kinds but `snapshot`, which tells nothing new."""
NULL = msgspec.Raw(b"null")


class Entry(msgspec.Struct, omit_defaults=True, gc=False):
    """One record. Times are wall-clock milliseconds."""

    by: str = ""
    kind: str = ""
    seq: int = 0
    op: int = -1
    name: str = ""
    at: int = 0
    value: msgspec.Raw = NULL
    failures: int = 0
    due: int = 0
    signal: int = -1
    error: str = ""
    error_type: str = ""
    status: str = ""
    correlation: str = ""
    undo: bool = False


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Entry).decode


def decode_record(key: bytes | None, value: bytes) -> tuple[str, Entry]:
    """The saga's id and the entry of a record. Raises one of `UNREADABLE` when it is none."""
    if not key:
        raise msgspec.ValidationError("the record has no key")
    return key.decode(), decode(value)
