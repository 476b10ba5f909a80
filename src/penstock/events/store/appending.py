"""Appending events: what is expected is checked against the index, and stored if the log ends where the index does.

Process safety: the log refuses the batch when it does not end there any more; then the index catches up and everything
is checked anew. So checks are exact over any number of processes, without a lock.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock._native.builder import BatchBuilder
from penstock.events.errors import WrongVersionError
from penstock.events.store.append_result import AppendResult
from penstock.events.store.core import Core
from penstock.events.store.encoding import Prepared
from penstock.events.store.expected import NO_STREAM, Expected, fits, wrong_version
from penstock.events.store.query import Query
from penstock.events.store.reading import matching_events, stream_events
from penstock.events.store.stream_state import Stream

_KEPT_BUILDER_BYTES = 4 << 20
_LOOKED_BACK = 64


class Part(NamedTuple):
    """What is appended to one stream."""

    stream: str
    key: bytes
    events: Prepared
    expected: Expected


class Boundary(NamedTuple):
    """No event that matches `unless` may have come behind position `after`."""

    unless: Query
    after: int


def append(core: Core, parts: list[Part], boundary: Boundary | None = None) -> list[AppendResult]:
    """Store all parts in one batch. Raises `WrongVersionError`, `StreamDeletedError` and what the log raises."""
    with core.lock:
        while True:
            end = core.catch_up()
            if boundary is not None:
                _check_boundary(core, boundary, end)
            streams = [core.stream(part.stream) for part in parts]
            earlier = _check_versions(core, parts, streams)
            if earlier is not None:
                return earlier
            stored = _store(core, parts, streams, end)
            if stored is not None:
                return stored


def _store(core: Core, parts: list[Part], streams: list[Stream], end: int) -> list[AppendResult] | None:
    """None when somebody else was faster."""
    builder = BatchBuilder(1 << 16) if core.spare_builder is None else core.spare_builder
    core.spare_builder = None
    position = end
    results, changed = [], []
    for part, stream in zip(parts, streams, strict=True):
        part.events.append_to(builder, part.key, stream.last_version + 1)
        count = len(part.events)
        position += count
        version = stream.last_version + count
        results.append(AppendResult(version, position))
        changed.append(Stream(stream.name, version, stream.state))
    stored = core.log.append(builder, end)
    if stored:
        core.appended(builder, end, position, changed)
    if builder.size_bytes <= _KEPT_BUILDER_BYTES:
        builder.reset()
        core.spare_builder = builder
    return results if stored else None


def _check_boundary(core: Core, boundary: Boundary, end: int) -> None:
    found = next(matching_events(core, boundary.unless, boundary.after, end), None)
    if found is not None:
        raise WrongVersionError(
            f"an event that matches {boundary.unless!r} came after position {boundary.after}: {found!r}",
            actual_version=found.version,
            position=found.position,
        )


def _check_versions(core: Core, parts: list[Part], streams: list[Stream]) -> list[AppendResult] | None:
    """Raise when a stream is not as expected; the first results when all of it was stored before."""
    earlier: list[AppendResult] = []
    wrong = None
    for part, stream in zip(parts, streams, strict=True):
        fit = fits(stream, part.expected)
        found = _stored_before(core, part, stream, fit)
        if found is not None:
            earlier.append(found)
        elif not fit and wrong is None:
            wrong = wrong_version(stream, part.expected)
    if len(earlier) == len(parts):
        return earlier
    if wrong is not None:
        raise wrong
    return None


def _stored_before(core: Core, part: Part, stream: Stream, fit: bool) -> AppendResult | None:
    """Where the same envelopes lie behind the version that is expected (among the newest ones where any is)."""
    ids = part.events.given_ids
    count = len(part.events)
    exact = part.expected is NO_STREAM or type(part.expected) is int
    if ids is None or (fit and exact):
        return None
    if type(part.expected) is int:
        first = part.expected + 1
    elif part.expected is NO_STREAM:
        first = stream.state.deleted_at + 1
    else:
        first = max(0, stream.last_version + 1 - 2 * count - _LOOKED_BACK)
    last = first + count - 1 if exact else stream.last_version
    if stream.last_version + 1 - first < count:
        return None
    found = list(stream_events(core, part.key, first, last))
    there = [event.message_id for event in found]
    for start in range(len(there) - count + 1):
        if there[start : start + count] == ids:
            event = found[start + count - 1]
            return AppendResult(event.version, event.position)
    return None
