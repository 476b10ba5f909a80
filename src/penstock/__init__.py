"""Penstock: an embedded message log for Python, with Kafka's semantics and file format, for any number of processes.

Start with `penstock.open`.
"""

import importlib

from penstock._native.records import Record, RecordMetadata
from penstock.clock import Clock, SystemClock, VirtualClock
from penstock.errors import (
    ClosedError,
    CodecUnavailableError,
    ConcurrencyError,
    CorruptionError,
    DataDirectoryError,
    DiskFullError,
    FencedError,
    FormatVersionError,
    GroupNotEmptyError,
    InvalidArgumentError,
    InvalidConfigError,
    InvalidNameError,
    InvalidTypeError,
    LockedError,
    OffsetOutOfRangeError,
    PenstockError,
    RebalanceError,
    RecordTooLargeError,
    StaleReceiptError,
    TopicExistsError,
    TransactionStateError,
    UnknownGroupError,
    UnknownTopicError,
    UnroutableError,
)
from penstock.storage.repair import RepairReport, repair
from penstock.storage.topic_config import TopicConfig
from penstock.storage.verify import VerifyReport, verify
from penstock.streams.assignors import Subscriptions
from penstock.streams.broker import Broker, open
from penstock.streams.consumer import Consumer
from penstock.streams.group_admin import GroupDescription, GroupPartition, MemberDescription
from penstock.streams.producer import Producer
from penstock.streams.record_batch import RecordBatch
from penstock.streams.topic import Topic
from penstock.streams.topic_partition import OffsetAndMetadata, TopicPartition
from penstock.streams.transactions import TransactionDescription

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "aio":  # not before it is asked for: asyncio takes longer to import than all of this
        return importlib.import_module("penstock.aio")
    raise AttributeError(f"module 'penstock' has no attribute {name!r}")


__all__ = [
    "Broker",
    "Clock",
    "ClosedError",
    "CodecUnavailableError",
    "ConcurrencyError",
    "Consumer",
    "CorruptionError",
    "DataDirectoryError",
    "DiskFullError",
    "FencedError",
    "FormatVersionError",
    "GroupDescription",
    "GroupNotEmptyError",
    "GroupPartition",
    "InvalidArgumentError",
    "InvalidConfigError",
    "InvalidNameError",
    "InvalidTypeError",
    "LockedError",
    "MemberDescription",
    "OffsetAndMetadata",
    "OffsetOutOfRangeError",
    "PenstockError",
    "Producer",
    "RebalanceError",
    "Record",
    "RecordBatch",
    "RecordMetadata",
    "RecordTooLargeError",
    "RepairReport",
    "StaleReceiptError",
    "Subscriptions",
    "SystemClock",
    "Topic",
    "TopicConfig",
    "TopicExistsError",
    "TopicPartition",
    "TransactionDescription",
    "TransactionStateError",
    "UnknownGroupError",
    "UnknownTopicError",
    "UnroutableError",
    "VerifyReport",
    "VirtualClock",
    "open",
    "repair",
    "verify",
]
