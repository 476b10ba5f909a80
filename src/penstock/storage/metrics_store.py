"""Who counts where: the slots of the shared file of counters, by what they are for.

Invariants: a partition, a share group in a partition and a consumer group have one slot each, whichever process asked
first. Thread and process safety: any; a slot is given out under a file lock. Crash policy: see `metrics.h`; the file is
never synced, and may be deleted while nobody has the directory open (counting then begins anew). A disk without room
for it is no reason to fail: what has no slot is not counted.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from penstock._native.metrics import GROUP, PARTITION, SHARE, MetricsBlock, MetricsFile
from penstock._native.partition import Partition
from penstock.errors import DiskFullError
from penstock.storage.directory import FileLock

METRICS_FILE = "metrics"
REUSE_MS = 600_000  # after this nobody has a handle on a deleted topic that still counts
Key = tuple[int, str, int, str]
_log = logging.getLogger("penstock.metrics")


class MetricsStore:
    """The counters of a directory. `partition`, `share` and `group` give the slot to count in, or None."""

    def __init__(self, directory: Path) -> None:
        self._path = directory
        self.file = MetricsFile(str(directory / METRICS_FILE))
        self._lock = threading.Lock()
        self._slots: dict[Key, int] = {}
        self._looked = 1

    def after_fork(self) -> None:
        """In the child: a lock of its own. The file is the same."""
        self._lock = threading.Lock()

    def count_partition(self, log: Partition, now_ms: int) -> None:
        """Count what this handle on a partition does."""
        block = self._block((PARTITION, log.topic, log.number, ""), now_ms)
        if block is not None:
            block.attach(log)

    def share(self, topic: str, number: int, group: str, now_ms: int) -> MetricsBlock | None:
        """The counters of a share group in a partition."""
        return self._block((SHARE, topic, number, group), now_ms)

    def group(self, group: str, now_ms: int) -> MetricsBlock | None:
        """The counters of a consumer group."""
        return self._block((GROUP, "", 0, group), now_ms)

    def retire(self, now_ms: int, topic: str = "", group: str = "") -> None:
        """A topic (with its share groups), a share group of it, or with `group` alone a consumer group is gone."""
        with self._lock, FileLock(self._path / "metrics.lock"):
            for slot, _, one_topic, _, one_group in self.file.names(1, self.file.used):
                if one_topic == topic and (not group or one_group == group):
                    self.file.retire(slot, now_ms)
            self._slots.clear()
            self._looked = 1

    def _block(self, key: Key, now_ms: int) -> MetricsBlock | None:
        with self._lock:
            slot = self._known(key)
            if slot is None:
                try:
                    slot = self._make(key, now_ms)
                except DiskFullError as error:
                    _log.warning("nothing is counted for %s: %s", key, error)
            return None if slot is None else MetricsBlock(self.file, slot)

    def _known(self, key: Key) -> int | None:
        slot = self._slots.get(key)
        return slot if slot is not None and self.file.is_of(slot, *key) else None

    def _make(self, key: Key, now_ms: int) -> int | None:
        with FileLock(self._path / "metrics.lock"):
            self._look(key in self._slots)
            slot = self._known(key)
            if slot is None:
                slot = self.file.allocate(*key, now_ms, REUSE_MS)
                if slot is None:
                    _log.warning("nothing is counted for %s: every slot is in use", key)
                else:
                    self._slots[key] = slot
            return slot

    def _look(self, again: bool) -> None:
        """Learn of the slots that others gave out. Slots that were used again are found by looking at all of them."""
        used = self.file.used
        for slot, kind, topic, number, group in self.file.names(1 if again else self._looked, used):
            self._slots[kind, topic, number, group] = slot
        self._looked = used
