"""Running a saga: its function as far as it goes, or its compensations, newest first."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.error_text import line_of
from penstock.errors import RecordTooLargeError
from penstock.events.context import handling
from penstock.events.envelope import Envelope
from penstock.events.retry import Retry
from penstock.events.sagas.codec import encode_value
from penstock.events.sagas.entry import NULL, Entry
from penstock.events.sagas.errors import (
    Diverged,
    JournalBroken,
    ReplayEnded,
    SagaTimeoutError,
    StepFailedError,
    Stopped,
    Suspended,
)
from penstock.events.sagas.saga import Compensation, Saga
from penstock.events.sagas.state import (
    CANCELLED,
    COMPENSATING,
    COMPENSATION_FAILED,
    COMPLETED,
    DIVERGED,
    FAILED,
    RUNNING,
    WAITING,
)
from penstock.events.sagas.step import StepInfo

if TYPE_CHECKING:
    from penstock.events.sagas.definition import Definition
    from penstock.events.sagas.partition import Task

_log = logging.getLogger("penstock.sagas")
UNDO_RETRY = Retry(max_attempts=5, delay=0.1, max_delay=5.0)
DISK_RETRY_MS = 1000
_LIVE = frozenset({RUNNING, WAITING, COMPENSATING})


def execute(task: Task, definition: Definition | None) -> tuple[int, int] | None:
    """Run a saga as far as it goes now. When it shall be run again, and when that was decided (wall-clock
    milliseconds), or None.

    Nothing that its steps raise leaves this, except what is no `Exception` (`KeyboardInterrupt`, `SystemExit`).
    """
    state = task.state
    if state.status not in _LIVE or task.partition.stopping:
        return None
    if definition is None:
        _log.error("saga %s: no definition %r in this process; it is left", state.id, state.definition)
        return None
    try:
        with handling(_envelope(task)):
            _run(task, definition)
    except Suspended as pause:
        return (pause.due_ms, pause.since_ms) if pause.due_ms else None
    except Stopped:
        return None
    except JournalBroken as broken:
        if task.partition.stopping:
            _log.info("saga %s goes on with another owner: %s", state.id, broken.error)
            return None
        _log.error("the journal of saga %s cannot be written; it is tried again: %s", state.id, broken.error)
        now_ms = task.partition.clock.time_ms()
        return now_ms + DISK_RETRY_MS, now_ms
    return None


def _run(task: Task, definition: Definition) -> None:
    saga = Saga(task)
    try:
        result = _call(saga, definition, task.state.args)
        raw = encode_value("the saga's result", result)
    except Diverged as diverged:
        _diverged(task, str(diverged))
        return
    except ReplayEnded:
        if task.state.status != COMPENSATING:
            _fail(task, CANCELLED, "", "cancelled", "")
    except StepFailedError as error:
        _fail(task, FAILED, error.step, error.reason, error.error_type)
    except SagaTimeoutError as error:
        _fail(task, FAILED, "", line_of(error), "SagaTimeoutError")
    except (Exception, asyncio.CancelledError) as error:  # whatever the function raises is what the saga failed with
        _fail(task, FAILED, "", line_of(error), type(error).__name__)
    else:
        if task.state.status != COMPENSATING:
            try:
                task.partition.end(task, COMPLETED, NULL if result is None else msgspec.Raw(raw))
                return
            except RecordTooLargeError as error:
                _fail(task, FAILED, "", line_of(error), type(error).__name__)
    _compensate(task, saga)


def _call(saga: Saga, definition: Definition, raw_args: msgspec.Raw) -> Any:
    """The function's result. What interrupted it is raised all the same when the function caught that."""
    try:
        result = definition.function(saga, *definition.decode(raw_args))
    except (Exception, asyncio.CancelledError) as error:
        saga.check_failure(error)
        raise
    saga.check_complete()
    return result


def _fail(task: Task, status: str, step: str, reason: str, error_type: str) -> None:
    """Compensation begins, unless it has begun before."""
    if task.state.status == COMPENSATING:
        return
    at = task.partition.clock.time_ms()
    task.partition.journal(
        task, Entry(kind="failed", name=step, at=at, status=status, error=reason, error_type=error_type)
    )
    if status == FAILED:
        _log.warning("saga %s fails: %s", task.state.id, reason, extra={"saga_id": task.state.id, "step": step})


def _diverged(task: Task, reason: str) -> None:
    _log.error("saga %s is not what its journal says: %s", task.state.id, reason)
    task.partition.end(task, FAILED, failure=("", reason, DIVERGED))


def _compensate(task: Task, saga: Saga) -> None:
    state = task.state
    for compensation in reversed(saga.undo):
        if compensation.op not in state.compensated and not _undo(task, compensation, saga.undo_key(compensation)):
            return
    task.partition.end(task, state.outcome)


def _undo(task: Task, compensation: Compensation, key: str) -> bool:
    """Run a compensation until it succeeds; False when it does not, and the saga ends with that."""
    state, partition = task.state, task.partition
    failures = 0
    if state.undoing is not None and state.undoing.op == compensation.op:
        failures = state.undoing.failures
        if not partition.is_due(task, state.undoing):
            raise Suspended(state.undoing.due, state.undoing.at)
    retry = compensation.retry or UNDO_RETRY
    while True:
        if partition.stopping:
            raise Stopped
        info = StepInfo(state.id, compensation.name, key, failures + 1, True)
        try:
            partition.caller.call(info, compensation.function, compensation.args, compensation.timeout)
        except Exception as error:
            failures += 1
            if retry.gives_up(error, failures):
                _log.error("saga %s: the compensation of %s failed: %r", state.id, compensation.name, line_of(error))
                failure = compensation.name, line_of(error), type(error).__name__
                partition.end(task, COMPENSATION_FAILED, failure=failure)
                return False
            now_ms = partition.clock.time_ms()
            due = now_ms + round(retry.delay_after(failures) * 1000)
            partition.journal(
                task,
                Entry(
                    kind="undo_attempt", op=compensation.op, name=compensation.name, at=now_ms, failures=failures,
                    due=due, error=line_of(error),
                ),
            )  # fmt: skip
            if due > now_ms:
                raise Suspended(due, now_ms) from None
            continue
        now_ms = partition.clock.time_ms()
        partition.journal(task, Entry(kind="undone", op=compensation.op, name=compensation.name, at=now_ms))
        return True


def _envelope(task: Task) -> Envelope:
    """What events that are published in steps are caused by: they carry the saga's correlation on."""
    state = task.state
    return Envelope(
        message_id=state.id,
        type=state.definition,
        version=1,
        timestamp=datetime.fromtimestamp(state.started / 1000, UTC),
        source=task.partition.source,
        correlation_id=state.correlation,
        payload=NULL,
        metadata={},
    )
