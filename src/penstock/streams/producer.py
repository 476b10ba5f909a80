"""The producer: batches records per partition and stores them; see `penstock._native.accumulator` for how."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock._native.accumulator import Accumulator
from penstock._native.lane import Lane, TopicLanes
from penstock.errors import (
    ClosedError,
    InvalidArgumentError,
    InvalidConfigError,
    InvalidTypeError,
    RecordTooLargeError,
    TransactionStateError,
)
from penstock.storage import compression
from penstock.storage.producer_sequence import last_sequence
from penstock.storage.topic_config import check_topic_name
from penstock.storage.transaction_record import EPOCH, TransactionRecord, record_path
from penstock.streams.lanes import open_lanes
from penstock.streams.linger import Linger
from penstock.streams.topic_partition import TopicPartition, checked_partition
from penstock.streams.transaction import Transaction, check_transactional_id

if TYPE_CHECKING:
    from penstock.storage.partition_log import PartitionLog
    from penstock.streams.broker import Broker
    from penstock.streams.consumer import Consumer

Partitioner = Callable[[str, Any, Any, int], int]
DEFAULT_BATCH_SIZE = 128 * 1024


class Producer(Accumulator):
    """Sends records; used by any number of threads.

    `linger_ms`: how long a batch that is not full may wait (default 5, as Kafka 4.0; 0 stores at once).
    `batch_size`: bytes of a full batch (default 128 KiB). `compression_type`: none, gzip, snappy, lz4, zstd;
    default the topic's, and none where the topic says `producer`. `partitioner(topic, key, value,
    partitions)`: default Kafka's.
    `buffer_memory`: bytes of unsent records (default 32 MiB) above which a send stores everything first.

    `enable_idempotence`: batches carry a producer id, an epoch and sequence numbers (KIP-98; default True). Either way
    what was stored is not stored again by a retry.
    `name`: the producer id outlives the process, so that a restarted one knows by `last_sequence` what was stored, and
    sends only the rest. One producer has a name at a time: making one fences the older one, in whatever process.
    `transactional_id`: records come in transactions, see `transaction`. One producer has an id at a time: making one
    fences the older one, in whatever process, and finishes what it left. `transaction_timeout_ms`: a transaction that
    takes longer is aborted and its producer fenced (default 60,000; at most 900,000).

    Leaving the `with` block, `close` and closing the broker store what is buffered. After a fork the child's producer
    works and is empty: the parent stores what it had buffered. Raises `InvalidConfigError` for options that contradict
    each other or are out of range.
    """

    def __init__(
        self,
        broker: Broker,
        linger_ms: float = 5,
        batch_size: int = DEFAULT_BATCH_SIZE,
        compression_type: str | None = None,
        partitioner: Partitioner | None = None,
        buffer_memory: int = 32 << 20,
        enable_idempotence: bool = True,
        name: str | None = None,
        transactional_id: str | None = None,
        transaction_timeout_ms: int = 60_000,
    ) -> None:
        _check_number("linger_ms", linger_ms, 0, 3_600_000)
        _check_int("batch_size", batch_size, 256, 1 << 30)
        _check_int("buffer_memory", buffer_memory, 1 << 16, 1 << 40)
        if partitioner is not None and not callable(partitioner):
            raise InvalidConfigError(f"partitioner is {partitioner!r}; a callable is needed")
        self._codec = None if compression_type is None else compression.codec_id(_check_str(compression_type))
        if self._codec is not None:
            compression.require(self._codec)
        if (transactional_id is not None or name is not None) and not enable_idempotence:
            raise InvalidConfigError("enable_idempotence is False; name and transactional_id need True")
        if transactional_id is not None and name is not None:
            raise InvalidConfigError(f"name is {name!r} and transactional_id is {transactional_id!r}; give one of them")
        _check_int("transaction_timeout_ms", transaction_timeout_ms, 1, 900_000)
        self.linger_s = linger_ms / 1000
        self._linger: Linger | None = None
        self._linger_lock = threading.Lock()
        super().__init__(broker, broker._catalog_bell, partitioner, batch_size, buffer_memory, linger_ms == 0)
        self._transaction: Transaction | None = None
        self._name: TransactionRecord | None = None
        if name is not None:
            self._take_name(check_transactional_id(name, "name"))
        elif transactional_id is not None:
            self._transaction = Transaction(self, check_transactional_id(transactional_id), transaction_timeout_ms)
        elif enable_idempotence:
            self._identify_anew()
        broker._register(self)

    def send_array(self, topic: str, array: Any, partition: int | None = None, timestamp_ms: int | None = None) -> int:
        """Buffer the items of an array, one record each; returns how many.

        `array`: numpy (n, width) uint8, one-dimensional fixed-width bytes (`S<width>`, trailing zeros included), or a
        tuple (buffer, offsets) where record i is `buffer[offsets[i]:offsets[i + 1]]`, as in Arrow. `partition`,
        `timestamp_ms`: as for `send`, for all. Raises `InvalidTypeError` and what `send` raises.
        """
        if isinstance(array, tuple):
            return self._send_ranges(topic, array, partition, timestamp_ms)
        if not isinstance(array, np.ndarray):
            raise InvalidTypeError(f"array is {type(array).__name__}; a numpy array or (buffer, offsets) is needed")
        if array.dtype.kind == "S" and array.ndim == 1:
            width = array.dtype.itemsize
        elif array.dtype == np.uint8 and array.ndim == 2:
            width = array.shape[1]
        else:
            raise InvalidTypeError(
                f"array is {array.ndim}-dimensional {array.dtype}; (n, width) uint8 or 1-dimensional S<width> is needed"
            )
        self._check_item_size(topic, width)
        data = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        return self._send_items(topic, data, width, None, len(array), partition, timestamp_ms)

    def _send_ranges(self, topic: str, pair: Any, partition: int | None, timestamp_ms: int | None) -> int:
        if len(pair) != 2:
            raise InvalidArgumentError(f"array is a tuple of {len(pair)}; (buffer, offsets) is needed")
        buffer, offsets = pair
        bounds = np.ascontiguousarray(offsets)
        if bounds.ndim != 1 or bounds.dtype.kind not in "iu" or len(bounds) == 0:
            raise InvalidTypeError("offsets must be a one-dimensional array of n + 1 integers")
        bounds = bounds.astype(np.int64, copy=False)
        data = np.frombuffer(buffer, np.uint8)
        steps = np.diff(bounds)
        if bounds[0] < 0 or bounds[-1] > len(data) or (steps < 0).any():
            raise InvalidArgumentError(
                f"offsets go from {bounds[0]} to {bounds[-1]}; they must ascend within the buffer's {len(data)} bytes"
            )
        self._check_item_size(topic, int(steps.max(initial=0)))
        return self._send_items(topic, data, 0, bounds, len(steps), partition, timestamp_ms)

    def _check_item_size(self, topic: str, size: int) -> None:
        most = self._broker._topic_config(check_topic_name(topic)).max_message_bytes
        if size > most:
            raise RecordTooLargeError(f"an item has {size} bytes; topic {topic!r} allows max_message_bytes={most}")

    # --- transactions ----------------------------------------------------------------------------------------------

    def transaction(self) -> AbstractContextManager[Producer]:
        """`with producer.transaction():` commits on leaving, and aborts when an exception leaves.

        All records sent inside, to any partitions, and the offsets given to `send_offsets` become visible to
        `read_committed` consumers together, or never. Raises `FencedError` (nothing was committed),
        `TransactionStateError` (one is open; no `transactional_id`).
        """
        return self._own_transaction()

    def begin_transaction(self) -> None:
        """Open a transaction; see `transaction`."""
        self._own_transaction().begin()

    def commit_transaction(self) -> None:
        """Store what is buffered and commit. When that fails the transaction is still open: try again, or abort."""
        self._own_transaction().commit()

    def abort_transaction(self) -> None:
        """Drop what is buffered; `read_committed` consumers never see what was stored since the transaction began."""
        self._own_transaction().abort()

    def send_offsets(self, consumer: Consumer) -> None:
        """Commit the consumer's positions (everything it delivered) with this transaction, for its group.

        From then on the consumer commits by transactions only: its auto-commit is switched off. After an abort,
        `consumer.seek_to_committed()` goes back. Raises `FencedError` when a partition is not the consumer's any more.
        """
        self._own_transaction().send_offsets(consumer)

    def _own_transaction(self) -> Transaction:
        if self.closed:
            raise ClosedError("the producer was closed")
        if self._transaction is None:
            raise TransactionStateError("the producer has no transactional_id; give one when making it")
        return self._transaction

    def _enlist(self) -> None:
        self._own_transaction().enlist()

    def close(self) -> None:
        """Store what is buffered and end; an open transaction is aborted. When that fails, the error is raised and the
        producer stays open, so that `close` may be tried again, or the records be given up with `purge`. Repeatable.
        """
        if self.closed:
            return
        if self._transaction is not None:
            self._transaction.close()
        self.flush()
        self._shut_down()
        self._broker._unregister(self)
        if self._linger is not None:
            self._linger.stop()

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for the native half and the linger thread -----------------------------------------------------------------

    @property
    def uses_system_clock(self) -> bool:
        """Whether real time drives the broker."""
        return self._is_system_clock()

    def store_lingering(self) -> bool:
        """Store the batches that waited long enough; True when nothing is left. A failure is kept for the next call."""
        limit = self._broker.clock.monotonic() - self.linger_s
        for lanes in self._loaded():
            error = self._store_topic(lanes, limit)
            # between looking and storing, an abort may drop the batch: then there is no transaction, and no failure
            if error is not None and not isinstance(error, TransactionStateError):
                self._failure = error
        return self.buffered_records == 0

    def linger_done(self) -> None:
        """The linger thread goes to sleep; a record that came in between wakes it again."""
        self._linger_awake = False
        if self.buffered_records:
            self._linger_awake = True
            self._wake_linger()

    def _wake_linger(self) -> None:
        if self._linger is None:
            with self._linger_lock:
                if self._linger is None:
                    self._linger = Linger(self)
        self._linger.wake()

    def _identify_anew(self) -> None:
        self._identify(secrets.randbelow(1 << 62) + 1, 0, None, 0, False)

    def _take_name(self, name: str) -> None:
        self._name = TransactionRecord(record_path(self._broker.path, name, "producers"), self._broker._incarnation)
        with self._name.lock():
            epoch = self._name.fence()
        self._identify(self._name.producer_id, epoch, self._name.words, EPOCH, False)

    def last_sequence(self, partition: TopicPartition) -> int:
        """Sequence number of the last record that producers of this name stored in a partition; -1 when there is none.

        Records of a partition are numbered from 0, in the order in which they were sent, modulo 2**31. So a restarted
        producer that sends the n-th item as the n-th record goes on with item `last_sequence + 1`. Reads the headers of
        the log, newest segment first. Raises `InvalidConfigError` without a `name`, `UnknownTopicError`.
        """
        if self._name is None:
            raise InvalidConfigError("name is None; sequences outlive a producer only by its name")
        return self._last_sequence(self._broker._log(*checked_partition(partition)))

    def _last_sequence(self, log: PartitionLog) -> int:
        assert self._name is not None
        found = last_sequence(log, self.producer_id)
        former = self._name.former_producer_id
        return last_sequence(log, former) if found < 0 and former else found

    def _load_topic(self, topic: str) -> TopicLanes:
        lanes = open_lanes(self._broker, check_topic_name(topic), self._codec)
        if self._name is not None:
            for lane in lanes.lanes:
                lane.sequence = -1  # looked for in the log when the first batch goes there
        return lanes

    def _first_sequence(self, lane: Lane) -> int:
        return (self._last_sequence(lane.log) + 1) & 0x7FFFFFFF

    def _after_fork(self) -> None:
        self._forget()
        if self._name is not None:  # it is the parent's
            self._identify(self.producer_id, -1, self._name.words, EPOCH, False)
        elif self._transaction is not None:
            self._transaction.forget()
        elif self.producer_id >= 0:
            self._identify_anew()
        self._linger_lock = threading.Lock()
        self._linger = None
        self._linger_awake = False


def _check_int(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidConfigError(f"{name} is {value!r}; allowed is an int from {least} to {most}")


def _check_number(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise InvalidConfigError(f"{name} is {value!r}; allowed is a number from {least} to {most}")


def _check_str(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidConfigError(f"compression_type is {value!r}; a str or None is needed")
    return value
