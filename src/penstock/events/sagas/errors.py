"""Errors of sagas. What derives from `Interruption` never leaves this package."""

from __future__ import annotations

from penstock.errors import PenstockError, WaitTimeoutError


class UnknownSagaError(PenstockError, KeyError):
    """No saga has this id, or no definition this name."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class SagaStateError(PenstockError, ValueError):
    """The saga is not in a state that this call is meant for."""


class SagaTimeoutError(WaitTimeoutError):
    """What a saga, or whoever wants its result, waited for did not come in time."""


class StepFailedError(PenstockError, RuntimeError):
    """A step failed for good, after its retries. A saga may catch it and go on otherwise.

    Attributes: `step` (its name), `reason` ("Type: message" of the last exception), `error_type`.
    """

    def __init__(self, step: str, reason: str, error_type: str = "") -> None:
        super().__init__(f"step {step!r} failed: {reason}")
        self.step, self.reason, self.error_type = step, reason, error_type

    def __reduce__(self) -> tuple[type[StepFailedError], tuple[str, str, str]]:
        return type(self), (self.step, self.reason, self.error_type)


class SagaFailedError(PenstockError, RuntimeError):
    """The saga failed. Attributes: `saga_id`, `step` (None: the saga function itself), `reason`, `status`."""

    def __init__(self, saga_id: str, step: str | None, reason: str, status: str = "failed") -> None:
        where = f" in step {step!r}" if step else ""
        super().__init__(f"saga {saga_id!r} {status}{where}: {reason}")
        self.saga_id, self.step, self.reason, self.status = saga_id, step, reason, status

    def __reduce__(self) -> tuple[type[SagaFailedError], tuple[str, str | None, str, str]]:
        return type(self), (self.saga_id, self.step, self.reason, self.status)


class SagaCancelledError(SagaFailedError):
    """The saga was cancelled, and its finished steps were compensated."""


class SagaNonDeterminismError(SagaFailedError):
    """A replay met another step than the journal has: the saga function changed, or does not do the same each time.

    Nothing was compensated; `Sagas.retry` goes on once the function fits the journal again.
    """


class Interruption(BaseException):
    """Leaves a saga function that cannot go on now; a BaseException, so that `except Exception` lets it pass."""


class Suspended(Interruption):
    """Nothing to do before `due_ms` (0: before a signal comes), which was decided at `since_ms`."""

    def __init__(self, due_ms: int, since_ms: int) -> None:
        super().__init__(due_ms, since_ms)
        self.due_ms, self.since_ms = due_ms, since_ms


class Stopped(Interruption):
    """The partition goes to another owner, or the program ends."""


class ReplayEnded(Interruption):
    """The journal ends here, and the saga must not go further: it is compensated."""


class Diverged(Interruption):
    """The journal has something else in this place."""


class JournalBroken(Interruption):
    """The journal could not be written; `error` tells why."""

    def __init__(self, error: Exception) -> None:
        self.error = error
