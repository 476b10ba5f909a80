"""What is known of one saga, and how each entry of the journal changes it. Pure: no clock, no I/O."""

from __future__ import annotations

import msgspec

from penstock.events.sagas.entry import NULL, Entry

PENDING = "pending"
RUNNING = "running"
WAITING = "waiting"
COMPENSATING = "compensating"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"
COMPENSATION_FAILED = "compensation_failed"
STATUSES = (PENDING, RUNNING, WAITING, COMPENSATING, COMPLETED, FAILED, CANCELLED, COMPENSATION_FAILED)
FINISHED = frozenset({COMPLETED, FAILED, CANCELLED, COMPENSATION_FAILED})
RETRIABLE = frozenset({FAILED, CANCELLED, COMPENSATION_FAILED})
DIVERGED = "SagaNonDeterminismError"
_OPERATIONS = frozenset({"step", "attempt", "gaveup", "wait", "woken", "expired", "timer"})
_WAITS = frozenset({"wait", "timer"})


class Signal(msgspec.Struct, gc=False):
    """A signal that was not consumed yet; its offset is its identity."""

    offset: int
    name: str
    value: msgspec.Raw


class SagaState(msgspec.Struct, omit_defaults=True, gc=False):
    """One saga. `seq`: of the last entry applied; `command`: offset of the last command; `first`: offset from which
    the log tells all of it.
    """

    id: str
    first: int
    definition: str = ""
    args: msgspec.Raw = NULL
    correlation: str = ""
    status: str = PENDING
    run: int = 1
    seq: int = 0
    command: int = -1
    started: int = 0
    updated: int = 0
    ops: dict[int, Entry] = {}
    signals: list[Signal] = []
    compensated: list[int] = []
    undoing: Entry | None = None
    cancel: bool = False
    step: str = ""
    reason: str = ""
    error_type: str = ""
    outcome: str = ""
    result: msgspec.Raw = NULL

    @property
    def finished(self) -> bool:
        """Whether it is in a status that it does not leave by itself."""
        return self.status in FINISHED


encode_state = msgspec.json.Encoder().encode
decode_state = msgspec.json.Decoder(SagaState).decode


def apply(state: SagaState, entry: Entry, offset: int) -> bool:
    """Change the state by an entry; False when it was applied before or means nothing now.

    `offset`: where a command stands; journal entries are told apart by their `seq`.
    """
    if entry.seq == 0:
        return _command(state, entry, offset)
    if entry.seq <= state.seq:
        return False
    state.seq = entry.seq
    state.updated = entry.at
    kind = entry.kind
    if kind in _OPERATIONS:
        state.ops[entry.op] = entry
        state.status = WAITING if kind in _WAITS else RUNNING
        if kind == "woken":
            state.signals = [signal for signal in state.signals if signal.offset != entry.signal]
    elif kind == "end":
        state.status, state.result = entry.status, entry.value
        if entry.status == COMPENSATION_FAILED:
            state.undoing = entry
        elif entry.error:
            state.step, state.reason, state.error_type = entry.name, entry.error, entry.error_type
    elif kind == "failed":
        state.status, state.outcome = COMPENSATING, entry.status
        state.step, state.reason, state.error_type = entry.name, entry.error, entry.error_type
    elif kind == "undone":
        state.compensated = [*state.compensated, entry.op]
        state.undoing = None
    elif kind == "undo_attempt":
        state.undoing = entry
    elif kind == "snapshot":
        _restore(state, decode_state(entry.value), offset)
    return True


def _restore(state: SagaState, saved: SagaState, offset: int) -> None:
    for name in SagaState.__struct_fields__:
        if name not in ("id", "first", "seq"):
            setattr(state, name, getattr(saved, name))
    state.first = offset


def _command(state: SagaState, entry: Entry, offset: int) -> bool:
    if offset <= state.command:
        return False
    state.command = offset
    kind = entry.kind
    if kind == "start" and state.status == PENDING:
        state.definition, state.args, state.correlation = entry.name, entry.value, entry.correlation or state.id
        state.status, state.started, state.updated = RUNNING, entry.at, entry.at
    elif kind == "signal" and not state.finished:
        state.signals = [*state.signals, Signal(offset, entry.name, entry.value)]
        state.updated = max(state.updated, entry.at)
    elif kind == "cancel" and state.status in (RUNNING, WAITING):
        state.cancel = True
    elif kind == "retry" and state.status in RETRIABLE:
        _retry(state, entry)
    else:
        return False
    return True


def _retry(state: SagaState, entry: Entry) -> None:
    """Compensations go on where they failed; what failed and was compensated runs anew, with other step keys."""
    state.updated = entry.at
    if state.status == COMPENSATION_FAILED:
        state.status, state.undoing = COMPENSATING, None
        return
    if state.error_type != DIVERGED:
        state.run += 1
        state.ops, state.compensated, state.undoing = {}, [], None
        state.started = entry.at
    state.cancel, state.status, state.outcome = False, RUNNING, ""
    state.step = state.reason = state.error_type = ""
