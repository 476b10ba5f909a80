"""SQS's batch operations: at most 10 entries, each with a result of its own, never all or nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import InvalidArgumentError, InvalidTypeError, PenstockError
from penstock.queues.arguments import checked_items

ENTRIES_MAX = 10
BYTES_MAX = 1 << 20
HEADERS_MAX = 10
DELAY_MAX_S = 900
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")


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
    for entry in checked_items("entries", entries):
        if not isinstance(entry, Mapping) or not all(isinstance(name, str) for name in entry):
            raise InvalidTypeError(f"entries[{len(checked)}] is {entry!r}; a dict of the arguments is needed")
        checked.append({"id": str(len(checked)), **entry})
    if not 1 <= len(checked) <= ENTRIES_MAX:
        raise InvalidArgumentError(f"entries has {len(checked)} items; allowed are 1 to {ENTRIES_MAX}")
    ids = [entry["id"] for entry in checked]
    for identity in ids:
        if not isinstance(identity, str) or not _ID.match(identity):
            raise InvalidArgumentError(f"id is {identity!r}; give a str of 1 to 80 letters, digits, - and _")
    if len(set(ids)) < len(ids):
        raise InvalidArgumentError(f"entries have the ids {ids}; they must differ")
    return checked


def named_entries(name: str, items: Any, second: str | None = None) -> list[dict[str, Any]]:
    """Entries of receipt handles, all different, each alone or in a pair with `second`."""
    entries: list[dict[str, Any]] = []
    for item in checked_items(name, items):
        if second is None:
            entries.append({"receipt_handle": item})
        elif isinstance(item, (tuple, list)) and len(item) == 2:
            entries.append({"receipt_handle": item[0], second: item[1]})
        else:
            raise InvalidTypeError(f"{name}[{len(entries)}] is {item!r}; a pair (receipt handle, {second}) is needed")
    handles = [repr(entry["receipt_handle"]) for entry in entries]
    if len(set(handles)) < len(handles):
        raise InvalidArgumentError(f"{name} has a receipt handle twice: {', '.join(handles)}")
    return entries


def check_sizes(entries: list[dict[str, Any]]) -> None:
    """Bodies, names and values of headers together: at most 1 MiB."""
    size = sum(_size(entry.get("value")) + sum(_size(part) for part in _parts(entry)) for entry in entries)
    if size > BYTES_MAX:
        raise InvalidArgumentError(f"entries have {size} bytes together; allowed are {BYTES_MAX}")


def check_entry(entry: dict[str, Any]) -> None:
    """What SQS allows less of than `Queue.send`: attributes, and the delay."""
    headers = entry.get("headers") or ()
    if isinstance(headers, (Mapping, list, tuple)) and len(headers) > HEADERS_MAX:
        raise InvalidArgumentError(f"headers has {len(headers)} items; allowed are {HEADERS_MAX} in a batch")
    delay = entry.get("delay")
    if isinstance(delay, (int, float)) and delay > DELAY_MAX_S:
        raise InvalidArgumentError(f"delay is {delay!r}; allowed are 0 to {DELAY_MAX_S} seconds in a batch")


def _parts(entry: dict[str, Any]) -> Iterable[Any]:
    headers = entry.get("headers") or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [part for pair in pairs if isinstance(pair, (tuple, list)) for part in pair] if _iterable(pairs) else ()


def _iterable(items: Any) -> bool:
    return isinstance(items, Iterable) and not isinstance(items, Iterator)


def _size(part: Any) -> int:
    if isinstance(part, str):
        return len(part.encode("utf-8", "surrogatepass"))
    return memoryview(part).nbytes if isinstance(part, (bytes, bytearray, memoryview)) else 0


def batch_results(entries: list[dict[str, Any]], action: Callable[[dict[str, Any]], Any]) -> list[BatchResult]:
    """Do `action` for each entry; what a call refuses is that entry's error."""
    results = []
    for entry in entries:
        identity = entry.pop("id")
        try:
            results.append(BatchResult(identity, action(entry), None))
        except PenstockError as error:
            results.append(BatchResult(identity, None, error))
        except TypeError as error:  # an argument that there is not
            results.append(BatchResult(identity, None, InvalidTypeError(str(error))))
    return results
