"""What can be told of a saga: for lists, for looking into one, and the handle by which its result is awaited."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from penstock.errors import InvalidArgumentError
from penstock.events.sagas.codec import decode_value
from penstock.events.sagas.entry import Entry
from penstock.events.sagas.errors import (
    SagaCancelledError,
    SagaFailedError,
    SagaNonDeterminismError,
    SagaTimeoutError,
)
from penstock.events.sagas.state import CANCELLED, COMPENSATION_FAILED, COMPLETED, DIVERGED, PENDING, RUNNING, SagaState

if TYPE_CHECKING:
    from penstock.events.sagas.sagas import Sagas

_KINDS = {
    "step": "completed", "attempt": "retrying", "gaveup": "failed", "wait": "waiting", "woken": "completed",
    "expired": "timed out", "timer": "waiting",
}  # fmt: skip
_SLICE_S = 0.25
WAIT_MAX_S = 1e12


@dataclass(frozen=True, slots=True)
class OperationInfo:
    """A step, wait or sleep of a saga."""

    number: int
    """Its place among the saga's operations, from 0."""
    name: str
    """Of the step, or of what is waited for; "sleep"."""
    status: str
    """completed, retrying, failed, waiting, timed out, compensated."""
    attempts: int
    """Attempts that ended, with the one that succeeded."""
    at: datetime
    """When it came into this status."""
    due: datetime | None
    """When it is tried again, or its waiting is over; None: never, or not waiting."""
    result: Any
    """What it returned."""
    error: str | None
    """Of the last attempt that failed."""


@dataclass(frozen=True, slots=True)
class SagaInfo:
    """A saga, as `Sagas.list` and `Sagas.inspect` tell it."""

    saga_id: str
    """Its id."""
    definition: str
    """Name of its definition."""
    status: str
    """running, waiting, compensating, completed, failed, cancelled, compensation_failed."""
    correlation_id: str
    """Of all events that come of it."""
    run: int
    """1, and one more for each retry from the beginning."""
    started: datetime
    """When it was started."""
    updated: datetime
    """When it last went on."""
    step: str | None
    """The step that failed."""
    reason: str | None
    """Why it failed, as "Type: message"."""
    compensation_error: str | None
    """Why the last compensation failed."""
    result: Any
    """What it returned."""
    operations: tuple[OperationInfo, ...]
    """Its steps and waits, in order."""
    signals: tuple[str, ...]
    """Names of the signals that came and were not waited for yet."""


def saga_info(state: SagaState) -> SagaInfo:
    """What is told of a state."""
    return SagaInfo(
        state.id,
        state.definition,
        shown(state),
        state.correlation or state.id,
        state.run,
        _time(state.started),
        _time(state.updated),
        state.step or None,
        state.reason or None,
        state.undoing.error if state.undoing is not None else None,
        decode_value(state.result),
        tuple(_operation(state, entry) for _, entry in sorted(state.ops.items())),
        tuple(signal.name for signal in state.signals),
    )


def shown(state: SagaState) -> str:
    """The status as it is told: signals that came before the start are no saga yet."""
    return RUNNING if state.status == PENDING else state.status


def _operation(state: SagaState, entry: Entry) -> OperationInfo:
    status = "compensated" if entry.op in state.compensated else _KINDS[entry.kind]
    attempts = entry.failures + (entry.kind == "step")
    due = _time(entry.due) if entry.due and status in ("waiting", "retrying") else None
    result = decode_value(entry.value)
    return OperationInfo(entry.op, entry.name, status, attempts, _time(entry.at), due, result, entry.error or None)


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


class SagaHandle:
    """A saga that was started, in whatever process; made by `Sagas.start` and `Sagas.handle`."""

    def __init__(self, sagas: Sagas, saga_id: str, partition: int) -> None:
        self._sagas = sagas
        self.saga_id = saga_id
        self._partition = partition

    @property
    def status(self) -> str:
        """running, waiting, compensating, completed, failed, cancelled or compensation_failed."""
        state = self._sagas._find(self.saga_id, self._partition)
        return RUNNING if state is None else shown(state)

    def result(self, timeout: float | None = None) -> Any:
        """What the saga function returned, once it did; waits at most `timeout` seconds (default: for ever).

        Somebody must run the sagas meanwhile, in any process. Raises `SagaFailedError` (`SagaCancelledError`,
        `SagaNonDeterminismError`), `SagaTimeoutError`, `InvalidArgumentError` (a timeout below 0).
        """
        if timeout is not None and (
            isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout <= WAIT_MAX_S
        ):
            raise InvalidArgumentError(f"timeout is {timeout!r}; seconds from 0 to {WAIT_MAX_S:g}, or None, are needed")
        clock = self._sagas.clock
        deadline = None if timeout is None else clock.monotonic() + timeout
        while True:
            state = self._sagas._find(self.saga_id, self._partition)
            if state is not None and state.finished:
                return outcome(state)
            left = _SLICE_S if deadline is None else deadline - clock.monotonic()
            if left <= 0:
                status = RUNNING if state is None else shown(state)
                raise SagaTimeoutError(f"saga {self.saga_id!r} is still {status} after {timeout} s")
            self._sagas._wait(self.saga_id, self._partition, min(left, _SLICE_S))

    def __repr__(self) -> str:
        return f"<penstock.events.SagaHandle {self.saga_id!r}>"


def outcome(state: SagaState) -> Any:
    """The result of a finished saga, or the error that tells why it has none."""
    if state.status == COMPLETED:
        return decode_value(state.result)
    step, reason = state.step or None, state.reason
    if state.error_type == DIVERGED:
        raise SagaNonDeterminismError(state.id, step, reason)
    if state.status == CANCELLED:
        raise SagaCancelledError(state.id, step, reason or "cancelled", CANCELLED)
    if state.status == COMPENSATION_FAILED and state.undoing is not None:
        reason = f"{reason}; the compensation of {state.undoing.name} failed: {state.undoing.error}"
    raise SagaFailedError(state.id, step, reason, state.status)
