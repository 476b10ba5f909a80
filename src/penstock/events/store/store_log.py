"""The log of a store: the one topic, as the store uses it. Nothing else of the store touches the topic.

Process safety: `append` with the end that one knows is what makes the checks of a store exact over processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from penstock._native.records import Record, RecordCursor
from penstock.errors import ConcurrencyError, InvalidConfigError, TopicExistsError, UnknownTopicError
from penstock.events.store.record_format import Headers

if TYPE_CHECKING:
    from penstock.streams.broker import Broker

MAX_BATCH_BYTES = 256 << 20
FETCH_BYTES = 1 << 20


class StoreLog:
    """Opens the topic `name`, or makes it: one partition, kept for ever."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.broker = broker
        self.clock = broker.clock
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

    @property
    def end(self) -> int:
        """The offset that the next record gets."""
        return self.topic.log(0).log_end_offset

    def append(
        self, values: list[bytes], keys: list[bytes], headers: list[Headers], timestamps_ms: int, expected_end: int
    ) -> int | None:
        """Store all of them at the end, as one batch; the first one's offset, or None when the log ends elsewhere."""
        try:
            stored = self.topic.append_batch(
                values, keys=keys, headers=headers, timestamp_ms=timestamps_ms, expected_offset=expected_end
            )
        except ConcurrencyError:
            return None
        return stored.offset

    def read(self, offset: int, end: int) -> Iterator[Record]:
        """The records from `offset` to before `end`."""
        log = self.topic.log(0)
        cursor = RecordCursor(self.topic.name, 0)
        region = None
        while offset < end:
            region = log.fetch(offset, FETCH_BYTES, region)
            if region is None:
                return
            cursor.feed(region, offset)
            records: list[Record] = []
            cursor.take(records, 1 << 30)
            for record in records:
                if record.offset < end:
                    yield record
            offset = region.next_offset

    def wait(self, end: int, timeout_s: float) -> bool:
        """Block until the log ends behind `end` (True) or the time is over (False)."""
        bell = self.broker._bell
        deadline = self.clock.monotonic() + timeout_s
        while True:
            seen = bell.arm()
            if self.end > end:
                return True
            left = deadline - self.clock.monotonic()
            if left <= 0:
                return False
            bell.wait(seen, min(left, 3600.0))
