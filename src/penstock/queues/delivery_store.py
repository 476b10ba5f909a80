"""Opening the delivery state of a share group in a partition.

Crash policy: whoever opens it first after the last process died makes the lock anew, under a file lock; after the
machine went down it also takes the state back to what the log has.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from penstock._native.delivery import Delivery
from penstock._native.records import DECOMPRESSED_LIMIT_BYTES
from penstock.storage.directory import FileLock
from penstock.storage.partition_log import PartitionLog

if TYPE_CHECKING:
    from penstock.streams.broker import Broker

PREFIX = "share-"


def open_delivery(broker: Broker, log: PartitionLog, group: str, *, ordered: bool = False) -> Delivery:
    """The delivery state of a group in a partition; made when it does not exist."""
    directory = log.directory / f"{PREFIX}{group}"
    directory.mkdir(exist_ok=True)
    with FileLock(log.directory / "share.lock"):
        delivery = Delivery(
            str(directory),
            log,
            broker._incarnation.number,
            broker._incarnation.boot_id,
            ordered,
            DECOMPRESSED_LIMIT_BYTES + log.config.max_message_bytes,
        )
    delivery.sync_each = broker.fsync == "always"
    if broker._metrics_store is not None:
        delivery.count_in(broker._metrics_store.share(log.topic, log.number, group, broker.clock.time_ms()))
    return delivery


def groups_of(log: PartitionLog) -> list[str]:
    """Names of the share groups that have state in a partition."""
    return groups_in(log.directory)


def groups_in(directory: Path) -> list[str]:
    """The same, of a partition's directory."""
    return sorted(path.name.removeprefix(PREFIX) for path in directory.glob(f"{PREFIX}*") if path.is_dir())
