"""Errors. Each derives from `PenstockError` and from the builtin that fits, so that either can be caught."""

from __future__ import annotations

from typing import Any


class PenstockError(Exception):
    """Base of every error Penstock raises on purpose. `retriable` tells whether the same call may succeed later."""

    retriable: bool = False


class InvalidArgumentError(PenstockError, ValueError):
    """An argument has an impossible value; the message names it, what was given and what is allowed."""


class InvalidTypeError(PenstockError, TypeError):
    """An argument has a type that cannot be stored; the message names it, what was given and what is allowed."""


class InvalidNameError(PenstockError, ValueError):
    """A topic (or other) name breaks Kafka's rules: 1 to 249 of `[A-Za-z0-9._-]`, not `.` or `..`."""


class InvalidConfigError(PenstockError, ValueError):
    """A configuration name is unknown or its value is outside what is allowed."""


class TopicExistsError(PenstockError, ValueError):
    """The topic to be created exists."""


class UnknownTopicError(PenstockError, KeyError):
    """The topic or partition does not exist, or was deleted."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class RecordTooLargeError(PenstockError, ValueError):
    """A record is larger than the topic's `max_message_bytes`."""


class CorruptionError(PenstockError, OSError):
    """Stored bytes are not what was written. Carries where, and what was expected and found.

    Attributes: `path` (file), `position` (byte in the file), `expected`, `got`.
    """

    def __init__(self, message: str, path: str = "", position: int = -1, expected: Any = None, got: Any = None) -> None:
        where = f"{path} at byte {position}: " if path else ""
        detail = f" (expected {expected}, got {got})" if expected is not None or got is not None else ""
        super().__init__(f"{where}{message}{detail}")
        self.message, self.path, self.position, self.expected, self.got = message, path, position, expected, got

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.path, self.position, self.expected, self.got)


class DiskFullError(PenstockError, OSError):
    """No room on the disk. What was stored stays readable; the call may be repeated when there is room."""

    retriable = True


class ClosedError(PenstockError, ValueError):
    """The broker, producer or consumer was closed, or belongs to the parent of this forked process."""


class FencedError(PenstockError, RuntimeError):
    """A newer owner (generation, epoch) took over; this one may not write any more."""


class OutOfOrderSequenceError(PenstockError, RuntimeError):
    """A producer's batch does not follow on the last one that it stored: batches in between are missing (KIP-98)."""


class OffsetOutOfRangeError(PenstockError, ValueError):
    """The offset is not in the log: below its start (retention passed it) or above its end."""


class RebalanceError(PenstockError, RuntimeError):
    """The group is rebalancing; the call may be repeated afterwards."""

    retriable = True


class TransactionStateError(PenstockError, RuntimeError):
    """The producer's transaction is not in the state that this call needs."""


class UnknownGroupError(PenstockError, KeyError):
    """The consumer group does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class GroupNotEmptyError(PenstockError, ValueError):
    """The consumer group has members; it can only be deleted without."""


class StaleReceiptError(PenstockError, ValueError):
    """The message was received again since this receipt was handed out."""


class UnknownQueueError(PenstockError, KeyError):
    """The queue does not exist, or was deleted."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class UnknownExchangeError(PenstockError, KeyError):
    """The exchange does not exist, or was deleted."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class QueueFullError(PenstockError, RuntimeError):
    """The queue is at its `max_length` (or `max_length_bytes`) and `overflow` is "reject-publish"; nothing was
    stored."""

    retriable = True


class TopicFullError(QueueFullError):
    """The partition is at its `retention_bytes` and the topic's `full_policy` is "refuse-new"; nothing was stored.

    What a producer buffered stays buffered. It goes on once retention, `delete_records` or settled messages made room.
    """


class OverLimitError(PenstockError, RuntimeError):
    """As many messages are in flight as the queue's `max_in_flight` allows."""

    retriable = True


class UnroutableError(PenstockError, KeyError):
    """A mandatory message matched no binding."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ConcurrencyError(PenstockError, ValueError):
    """The expected version or offset is not the actual one; nothing was stored.

    Attributes: `actual_offset`, where the partition ends, and `actual_version`, of a stream of events; None where the
    other one was expected.
    """

    def __init__(self, message: str, actual_offset: int | None = None, actual_version: int | None = None) -> None:
        super().__init__(message)
        self.actual_offset, self.actual_version = actual_offset, actual_version

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.actual_offset, self.actual_version)


class WaitTimeoutError(PenstockError, TimeoutError):
    """What was waited for did not come in time."""

    retriable = True


class LockedError(PenstockError, OSError):
    """Another process holds what this call needs exclusively."""

    retriable = True


class FormatVersionError(PenstockError, ValueError):
    """The data directory was written by a newer format than this version understands."""


class DataDirectoryError(PenstockError, OSError):
    """The data directory cannot be used: not a directory, not writable, or owned by someone else."""


class CodecUnavailableError(PenstockError, ImportError):
    """The batch is compressed by a codec whose library is not installed; the message names the extra to install."""
