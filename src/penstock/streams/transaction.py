"""A transactional producer's side of its transactions: one at a time, begun, filled, committed or aborted."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from penstock._native.fetcher import Fetcher
from penstock.errors import InvalidArgumentError, InvalidTypeError, TransactionStateError
from penstock.storage.transaction_record import EPOCH

if TYPE_CHECKING:
    from penstock.storage.partition_log import PartitionLog
    from penstock.streams.consumer import Consumer
    from penstock.streams.producer import Producer

ID_MAX = 60
_FILE_NAME_MAX = 240


def check_transactional_id(name: Any, argument: str = "transactional_id") -> str:
    """A transactional id or a producer's name: text of 1 to 60 printable characters (it names a file)."""
    if not isinstance(name, str):
        raise InvalidTypeError(f"{argument} is {name!r}; give a str")
    if not 1 <= len(name) <= ID_MAX or not name.isprintable() or len(quote(name, safe="")) > _FILE_NAME_MAX:
        raise InvalidArgumentError(
            f"{argument} is {name!r}; give 1 to {ID_MAX} printable characters "
            f"(at most {_FILE_NAME_MAX} percent-encoded)"
        )
    return name


class Transaction:
    """Made with the producer, which it identifies. Any thread; what changes the state is done by one at a time.

    As a context manager: see `Producer.transaction`.
    """

    def __init__(self, producer: Producer, transactional_id: str, timeout_ms: int) -> None:
        self._producer = producer
        self._transactions = producer._broker._transactions
        self.transactional_id = transactional_id
        self._lock = threading.RLock()
        self._open = False
        self._offsets: dict[int, tuple[int, int]] = {}
        self._logs: list[PartitionLog] = []
        self._record, self._epoch, self._holder = self._transactions.take_over(transactional_id, timeout_ms)
        producer._identify(self._record.producer_id, self._epoch, self._record.words, EPOCH, True)
        producer._idle = True

    def __enter__(self) -> Producer:
        self.begin()
        return self._producer

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._open:
            return  # the block ended it itself
        if kind is not None:
            self.abort()
            return
        try:
            self.commit()
        except BaseException:
            if self._open:
                self.abort()
            raise

    def begin(self) -> None:
        """Open it."""
        with self._lock:
            if self._open:
                raise TransactionStateError(
                    f"a transaction of {self.transactional_id!r} is open; commit or abort it first"
                )
            self._transactions.settle(self._record, self._epoch)
            self._record.begin(self._epoch, self._producer._broker.clock.time_ms())
            self._open = True
            self._producer._idle = False

    def enlist(self) -> None:
        """Before the first batch goes to a partition: all partitions with records now, in one go."""
        with self._lock:
            if not self._open:
                raise TransactionStateError(f"no transaction of {self.transactional_id!r} is open")
            lanes = [lane for topic in self._producer._loaded() for lane in topic.lanes]
            new = [lane for lane in lanes if not lane.enlisted and (lane.open_records or lane.waiting)]
            logs = [lane.log for lane in new]
            self._transactions.enlist(self._record, self._epoch, logs)
            self._logs += logs
            for lane in new:
                lane.enlisted = True

    def send_offsets(self, consumer: Consumer) -> None:
        """Take the consumer's positions."""
        if not isinstance(consumer, Fetcher):
            raise InvalidTypeError(f"consumer is {type(consumer).__name__}; a Consumer is needed")
        ours, theirs = self._producer._broker.path, consumer._broker.path
        if consumer._broker is not self._producer._broker and not ours.samefile(theirs):
            raise InvalidArgumentError(f"the consumer reads {str(theirs)!r}; one of {str(ours)!r} is needed")
        with self._lock:
            self._must_be_open()
            for cell, claim, offset in consumer._offsets_for_transaction():
                self._offsets[cell] = claim, offset

    def commit(self) -> None:
        """Everything or an error."""
        with self._lock:
            self._must_be_open()
            self._producer.flush()
            offsets = [(cell, claim, offset) for cell, (claim, offset) in self._offsets.items()]
            self._transactions.commit(self._record, self._epoch, offsets, self._logs)
            self._ended()

    def abort(self) -> None:
        """Nothing."""
        with self._lock:
            self._must_be_open()
            self._producer.purge()
            self._transactions.abort(self._record, self._epoch)
            self._ended()

    def _must_be_open(self) -> None:
        if not self._open:
            raise TransactionStateError(f"no transaction of {self.transactional_id!r} is open")

    def _ended(self) -> None:
        self._open = False
        self._offsets.clear()
        self._logs = []
        self._producer._idle = True
        for topic in self._producer._loaded():
            for lane in topic.lanes:
                lane.enlisted = False

    def close(self) -> None:
        """Abort what is open."""
        with self._lock:
            if self._open:
                self.abort()
            self._transactions.give_back(self._record, self._holder)
            self._holder = ""

    def forget(self) -> None:
        """In a forked child: the transaction and the id are the parent's."""
        self._lock = threading.RLock()
        self._open = False
        self._epoch, self._holder = -1, ""
        self._producer._identify(self._record.producer_id, -1, self._record.words, EPOCH, True)
        self._producer._idle = True
