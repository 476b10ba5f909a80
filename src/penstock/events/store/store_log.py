"""The log of a store: the one topic, as the store uses it. Nothing else of the store touches the topic.

Process safety: `append` with the end that one knows is what makes the checks of a store exact over processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from penstock._native.builder import BatchBuilder
from penstock._native.log_region import LogRegion
from penstock._native.records import DECOMPRESSED_LIMIT_BYTES, Record
from penstock._native.stored_events import EventReader
from penstock.errors import ConcurrencyError, InvalidConfigError, TopicExistsError, UnknownTopicError
from penstock.events.erasure import Erasure
from penstock.events.store.recorded import RecordedEvent

if TYPE_CHECKING:
    from penstock.streams.broker import Broker

MAX_BATCH_BYTES = 256 << 20
FETCH_BYTES = 1 << 20
FIRST_FETCH_BYTES = 1 << 16
ROW_FETCH_BYTES = 1 << 16


class StoreLog:
    """Opens the topic `name`, or makes it: one partition, kept for ever."""

    def __init__(self, broker: Broker, name: str, erasure: Erasure) -> None:
        self.broker = broker
        self.clock = broker.clock
        self._erasure = erasure
        try:
            self.topic = broker.topic(name)
        except UnknownTopicError:
            try:
                self.topic = broker.create_topic(
                    name, cleanup_policy="", compression_type="none", max_message_bytes=MAX_BATCH_BYTES
                )
            except TopicExistsError:  # another process was faster
                self.topic = broker.topic(name)
        config = self.topic.config
        if config.partitions != 1 or config.cleanup_policy != "":
            raise InvalidConfigError(
                f"topic {name!r} has partitions={config.partitions} and cleanup_policy={config.cleanup_policy!r}; "
                "an event store needs 1 and '' (kept for ever)"
            )

        self.partition = self.topic.log(0)
        self.directory: Path = self.partition.directory / "index"
        """Where the index of the log lies: it goes with the topic."""
        self.batch_bytes_max = DECOMPRESSED_LIMIT_BYTES + config.max_message_bytes

    @property
    def end(self) -> int:
        """The offset that the next record gets."""
        return self.partition.log_end_offset

    def append(self, builder: BatchBuilder, expected_end: int) -> bool:
        """Store the records at the end, as one batch; False when the log ends elsewhere.

        Raises `RecordTooLargeError`, `DiskFullError`.
        """
        try:
            self.topic.append_built(builder, expected_offset=expected_end)
        except ConcurrencyError:
            return False
        return True

    def reader(self) -> EventReader:
        """What makes events of stored batches; for one thread."""
        return EventReader(RecordedEvent, self._erasure, self.batch_bytes_max)

    def fetch(self, offset: int, after: LogRegion | None = None, max_bytes: int = FETCH_BYTES) -> LogRegion:
        """Stored batches, from the one that holds `offset` on, which is in the log. `after`: those before."""
        region = self.partition.fetch(offset, max_bytes, after)
        assert region is not None, f"offset {offset} is the log's end"
        return region

    def fingerprint(self, end: int) -> int:
        """CRC-32C of the batch that ends before offset `end`; -1 when no batch does."""
        if not 0 < end <= self.end:
            return -1
        region = self.fetch(end - 1, None, 1)
        return int.from_bytes(memoryview(region)[17:21], "big") if region.next_offset == end else -1

    def read(self, start: int, end: int) -> Iterator[list[RecordedEvent]]:
        """The events at offsets `start` to before `end`, in lists. Raises `CorruptionError`."""
        reader = self.reader()
        region = None
        max_bytes = FIRST_FETCH_BYTES
        while start < end:
            region = self.fetch(start, region, max_bytes)
            max_bytes = min(2 * max_bytes, FETCH_BYTES)
            yield reader.take(region, start, end)
            start = region.next_offset

    def read_rows(self, rows: list[tuple[int, int]], key: bytes | None, first: int, last: int) -> list[RecordedEvent]:
        """The events at rows of the index; see `EventReader.take_rows`."""
        return self.reader().take_rows(self.partition, rows, key, first, last, ROW_FETCH_BYTES)

    def record(self, offset: int) -> Record:
        """The record at an offset. Raises `CorruptionError`."""
        return self.topic.read([offset])[0]

    def wait(self, end: int, timeout_s: float) -> bool:
        """Block until the log ends behind `end` (True) or the time is over (False)."""
        bell = self.broker._bell
        deadline = self.clock.monotonic() + timeout_s
        while True:
            seen = bell.arm()
            self.broker._check_open()
            if self.end > end:
                return True
            left = deadline - self.clock.monotonic()
            if left <= 0:
                return False
            bell.wait(seen, min(left, 3600.0))
