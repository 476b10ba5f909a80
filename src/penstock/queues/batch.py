"""SQS's batch operations: at most 10 entries, each with a result of its own, never all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import InvalidArgumentError, InvalidTypeError, PenstockError

ENTRIES_MAX = 10
BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one entry."""

    id: str
    """The entry's `id`, or its position."""
    message_id: str | None
    """Of a message that was sent."""
    error: PenstockError | None
    """Why it failed; None when it did not."""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.error is None


def checked_batch(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries, each with an id, or an error when the batch as a whole is not allowed."""
    checked: list[dict[str, Any]] = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise InvalidTypeError(f"entries[{len(checked)}] is {entry!r}; a dict of the arguments is needed")
        checked.append({"id": str(len(checked)), **entry})
    if not 1 <= len(checked) <= ENTRIES_MAX:
        raise InvalidArgumentError(f"entries has {len(checked)} items; allowed are 1 to {ENTRIES_MAX}")
    ids = [entry["id"] for entry in checked]
    if len(set(ids)) < len(ids):
        raise InvalidArgumentError(f"entries have the ids {ids}; they must differ")
    bodies = [entry.get("value") for entry in checked]
    size = sum(memoryview(body).nbytes for body in bodies if isinstance(body, (bytes, bytearray, memoryview)))
    if size > BYTES_MAX:
        raise InvalidArgumentError(f"entries have {size} bytes together; allowed are {BYTES_MAX}")
    return checked


def batch_results(
    entries: list[dict[str, Any]], action: Callable[[dict[str, Any]], Any], *, keep_id: bool = False
) -> list[BatchResult]:
    """Do `action` for each entry; what a call refuses is that entry's error."""
    results = []
    for entry in entries:
        identity = entry["id"]
        try:
            done = action(entry if keep_id else {name: value for name, value in entry.items() if name != "id"})
            results.append(BatchResult(identity, done, None))
        except PenstockError as error:
            results.append(BatchResult(identity, None, error))
        except TypeError as error:
            results.append(BatchResult(identity, None, InvalidTypeError(str(error))))
    return results
