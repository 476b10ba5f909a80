"""The state of one transactional producer: a mapped file that every process reads and that outlives all of them.

`transactions/<transactional id>.txn`: words (epoch, state, times, sizes), the owner's process, then the partitions that
the open transaction touches and the group offsets that it commits. The decision to commit or abort is one
compare-and-swap of the state word, which holds the epoch, so that it fails for whoever was fenced.

A record takes a page of the disk, and more only while its lists are long. Ids that nobody used for seven days are
forgotten (see `Transactions.expire`).

Thread and process safety: `lock` for everything but the decision; its mutex is made anew for each incarnation of the
directory. Crash policy: whoever finds what is decided carries it out.
"""

from __future__ import annotations

import fcntl
import secrets
import struct
from array import array
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from penstock._native.words import SharedMutex, WordTable
from penstock.errors import CorruptionError, FencedError, InvalidArgumentError
from penstock.storage.recovery import Incarnation

EPOCH, STATE, STARTED_MS, TIMEOUT_MS, LIST_BYTES, OFFSETS_BYTES, PRODUCER_ID, MUTEX_MADE, FORMER_ID = range(9)
_MUTEX_WORD = 16
EMPTY, ONGOING, COMMITTED, ABORTED = range(4)
EPOCH_MAX = 0x7FFF
SUFFIX = ".txn"
_OFFSET = struct.Struct("=qqq")
_TOKEN_AT, _TOKEN_BYTES = 256, 32
_LIST_AT, _FILE_BYTES, _STEP_BYTES = 512, 1 << 22, 4096


def record_path(directory: Path, name: str, kind: str = "transactions") -> Path:
    """Where the record of a transactional id lies, or (`producers`) that of a producer's name."""
    return directory / kind / (quote(name, safe="") + SUFFIX)


class TransactionRecord:
    """An open record; made when there is none."""

    def __init__(self, path: Path, incarnation: Incarnation) -> None:
        self.path = path
        path.parent.mkdir(exist_ok=True)
        self.words = WordTable(str(path), _FILE_BYTES // 8, _STEP_BYTES)
        self.words.reserve(_LIST_AT // 8)
        self._lock = self._made_ready(incarnation)

    def _made_ready(self, incarnation: Incarnation) -> SharedMutex:
        fcntl.flock(self.words.map.fd, fcntl.LOCK_EX)
        try:
            fresh = self.words.get(MUTEX_MADE) != incarnation.word
            mutex = SharedMutex(self.words, _MUTEX_WORD, fresh)
            self.words.set(MUTEX_MADE, incarnation.word)
            if self.words.get(PRODUCER_ID) == 0:
                self.words.set(PRODUCER_ID, secrets.randbelow(1 << 62) + 1)
        finally:
            fcntl.flock(self.words.map.fd, fcntl.LOCK_UN)
        return mutex

    def lock(self) -> SharedMutex:
        """Held while the transaction is enlisted in a partition, carried out or taken over."""
        return self._lock

    @property
    def producer_id(self) -> int:
        """Marks the batches; the same for ever."""
        return self.words.get(PRODUCER_ID)

    @property
    def former_producer_id(self) -> int:
        """The one before, when epochs began again with a new one; 0: none."""
        return self.words.get(FORMER_ID)

    @property
    def epoch(self) -> int:
        """Counts the owners; only the newest may write."""
        return self.words.get(EPOCH)

    @property
    def state(self) -> int:
        """EMPTY, ONGOING, COMMITTED or ABORTED (both: decided, and not yet carried out)."""
        found = self.words.get(STATE) & 0xFF
        if found > ABORTED:
            raise CorruptionError("the state of a transaction is damaged", str(self.path), 8 * STATE, "0 to 3", found)
        return found

    @property
    def started_ms(self) -> int:
        """When the open transaction, or the last one, began."""
        return self.words.get(STARTED_MS)

    @property
    def timeout_ms(self) -> int:
        """How long it may take."""
        return self.words.get(TIMEOUT_MS)

    @property
    def owner(self) -> str:
        """The process it belongs to."""
        return self.words.read_bytes(_TOKEN_AT, _TOKEN_BYTES).rstrip(b"\0").decode("ascii", "replace")

    def take(self, token: str, timeout_ms: int, now_ms: int) -> int:
        """Begin a new epoch for this owner, once nothing of an older one is left. Needs `lock`."""
        epoch = self.fence()
        self.words.write_bytes(_TOKEN_AT, token.encode("ascii").ljust(_TOKEN_BYTES, b"\0"))
        self.words.set(TIMEOUT_MS, timeout_ms)
        self.words.set(STARTED_MS, now_ms)
        self.words.set(STATE, epoch << 8 | EMPTY)
        return epoch

    def fence(self) -> int:
        """Shut the owner out: the new epoch. Needs `lock`. When epochs run out they begin again, as a new producer."""
        if self.epoch >= EPOCH_MAX:
            self.words.set(FORMER_ID, self.producer_id)
            self.words.set(PRODUCER_ID, secrets.randbelow(1 << 62) + 1)
            self.words.set(EPOCH, -1)
        return self.words.add(EPOCH, 1)

    def decide(self, epoch: int, state: int) -> bool:
        """Whether the ongoing transaction of that epoch now is COMMITTED or ABORTED because of this call."""
        return self.words.swap(STATE, epoch << 8 | ONGOING, epoch << 8 | state)

    def begin(self, epoch: int, now_ms: int) -> None:
        """Nothing is touched yet. Raises `FencedError`."""
        with self.lock():
            if self.words.get(STATE) != epoch << 8 | EMPTY or self.epoch != epoch:
                self.refuse(epoch)
            self.words.set(STARTED_MS, now_ms)
            self.words.set(OFFSETS_BYTES, 0)
            self.words.set(STATE, epoch << 8 | ONGOING)

    def refuse(self, epoch: int) -> None:
        """Raise the `FencedError` of a former owner."""
        raise FencedError(
            f"epoch {epoch} of transactional_id {self.path.stem!r} is over (it is {self.epoch}): another producer "
            f"took it, or its transaction took longer than {self.timeout_ms} ms"
        )

    def is_open(self, epoch: int) -> bool:
        """Whether the transaction of that epoch is open and not decided."""
        return self.words.get(STATE) == epoch << 8 | ONGOING and self.words.get(EPOCH) == epoch

    def is_committed(self, epoch: int) -> bool:
        """Whether the owner of that epoch decided to commit before, and perhaps carried it out."""
        return self.words.get(STATE) in (epoch << 8 | COMMITTED, epoch << 8 | EMPTY) and self.epoch == epoch

    def add_partitions(self, entry: bytes) -> None:
        """The transaction touches these partitions too, each a line of topic, tab and number. Needs `lock`."""
        size = self.words.get(LIST_BYTES)
        if _LIST_AT + size + len(entry) > _FILE_BYTES:
            raise InvalidArgumentError(f"a transaction touches more partitions than fit in {self.path}")
        self.words.set(OFFSETS_BYTES, 0)  # they lie behind, and are given anew by whoever commits
        if self.words.read_bytes(_LIST_AT + size, len(entry)) != entry:  # mostly the same as last time
            self.words.write_bytes(_LIST_AT + size, entry)
        self.words.set(LIST_BYTES, size + len(entry))

    def partitions(self) -> list[tuple[str, int]]:
        """The partitions it touches."""
        raw = self.words.read_bytes(_LIST_AT, self.words.get(LIST_BYTES))
        try:
            pairs = [line.split("\t") for line in raw.decode().splitlines()]
            return [(topic, int(number)) for topic, number in pairs]
        except ValueError as error:
            raise CorruptionError(
                "the partitions of a transaction are damaged", str(self.path), _LIST_AT, "topic, tab, number", raw[:80]
            ) from error

    def _offsets_at(self) -> int:
        return _LIST_AT + (self.words.get(LIST_BYTES) + 7) // 8 * 8

    def set_offsets(self, offsets: list[tuple[int, int, int]]) -> None:
        """(cell, claim, offset) of the group offsets that the decision commits."""
        raw = array("q", chain.from_iterable(offsets)).tobytes()
        if self._offsets_at() + len(raw) > _FILE_BYTES:
            raise InvalidArgumentError(f"{len(offsets)} offsets are more than fit in one transaction")
        self.words.write_bytes(self._offsets_at(), raw)
        self.words.set(OFFSETS_BYTES, len(raw))

    def offsets(self) -> list[tuple[int, int, int]]:
        """What `set_offsets` stored, and is not applied yet."""
        raw = self.words.read_bytes(self._offsets_at(), self.words.get(OFFSETS_BYTES))
        return [(cell, claim, offset) for cell, claim, offset in _OFFSET.iter_unpack(raw)]

    def offsets_applied(self) -> None:
        """Nobody needs to apply them again."""
        self.words.set(OFFSETS_BYTES, 0)

    def finish(self) -> None:
        """Everything decided is carried out. Needs `lock`."""
        self.words.set(LIST_BYTES, 0)
        self.words.set(STATE, self.epoch << 8 | EMPTY)
