"""Message ids: UUID version 7 (RFC 9562), so that ids made later sort later."""

from __future__ import annotations

import os
import random
import threading
import time

_lock = threading.Lock()
_random = random.Random(os.urandom(32))
_last = 0  # milliseconds and the 12-bit counter within one of them
_COUNTER_BITS = 12


def new_message_id() -> str:
    """A UUIDv7 of now, greater than any that this process made before."""
    stamp = reserve_stamps(1)
    with _lock:
        noise = _random.getrandbits(62)
    text = f"{stamp >> _COUNTER_BITS:012x}7{stamp & 0xFFF:03x}{0x8000000000000000 | noise:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def reserve_stamps(count: int) -> int:
    """The first of `count` stamps (milliseconds of now << 12 | counter) in a row, that nobody else gets."""
    global _last
    with _lock:
        first = max(_last + 1, (time.time_ns() // 1_000_000) << _COUNTER_BITS)
        _last = first + count - 1
    return first


def new_seed() -> int:
    """64 random bits, for ids that are put together elsewhere."""
    with _lock:
        return _random.getrandbits(64)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _random.seed(os.urandom(32))


os.register_at_fork(after_in_child=_after_fork_in_child)
