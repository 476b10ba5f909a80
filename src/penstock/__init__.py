"""Penstock: an embedded message log and queue engine for Python, for any number of processes.

Start with `penstock.open`.
"""

import importlib
import logging

from penstock._native.message import Message
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
    OutOfOrderSequenceError,
    OverLimitError,
    PenstockError,
    QueueFullError,
    RebalanceError,
    RecordTooLargeError,
    StaleReceiptError,
    TopicExistsError,
    TopicFullError,
    TransactionStateError,
    UnknownExchangeError,
    UnknownGroupError,
    UnknownQueueError,
    UnknownTopicError,
    UnroutableError,
    WaitTimeoutError,
)
from penstock.metrics import Metrics
from penstock.queues.batch import BatchResult
from penstock.queues.broker import Broker, open
from penstock.queues.exchange import Exchange
from penstock.queues.matchers import Binding
from penstock.queues.queue import Queue
from penstock.queues.queue_config import QueueConfig
from penstock.queues.queue_stats import QueueStats
from penstock.queues.redrive import RedriveReport, RedriveTask
from penstock.queues.retry import RetryPolicy
from penstock.queues.schedule import Schedule
from penstock.queues.share_group import ShareGroup
from penstock.queues.worker import Worker
from penstock.storage.repair import RepairReport, repair
from penstock.storage.topic_config import TopicConfig
from penstock.storage.verify import VerifyReport, verify
from penstock.streams.assignors import Subscriptions
from penstock.streams.consumer import Consumer
from penstock.streams.group_admin import GroupDescription, GroupPartition, MemberDescription
from penstock.streams.producer import Producer
from penstock.streams.record_batch import RecordBatch
from penstock.streams.topic import Topic
from penstock.streams.topic_partition import OffsetAndMetadata, TopicPartition
from penstock.streams.transactions import TransactionDescription

__version__ = "0.1.0"
logging.getLogger("penstock").addHandler(logging.NullHandler())  # what is logged is for those who ask for it


def __getattr__(name: str) -> object:
    if name == "aio":  # not before it is asked for: asyncio takes longer to import than all of this
        return importlib.import_module("penstock.aio")
    raise AttributeError(f"module 'penstock' has no attribute {name!r}")


__all__ = [
    "BatchResult",
    "Binding",
    "Broker",
    "Clock",
    "ClosedError",
    "CodecUnavailableError",
    "ConcurrencyError",
    "Consumer",
    "CorruptionError",
    "DataDirectoryError",
    "DiskFullError",
    "Exchange",
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
    "Message",
    "Metrics",
    "OffsetAndMetadata",
    "OffsetOutOfRangeError",
    "OutOfOrderSequenceError",
    "OverLimitError",
    "PenstockError",
    "Producer",
    "Queue",
    "QueueConfig",
    "QueueFullError",
    "QueueStats",
    "RebalanceError",
    "Record",
    "RecordBatch",
    "RecordMetadata",
    "RecordTooLargeError",
    "RedriveReport",
    "RedriveTask",
    "RepairReport",
    "RetryPolicy",
    "Schedule",
    "ShareGroup",
    "StaleReceiptError",
    "Subscriptions",
    "SystemClock",
    "Topic",
    "TopicConfig",
    "TopicExistsError",
    "TopicFullError",
    "TopicPartition",
    "TransactionDescription",
    "TransactionStateError",
    "UnknownExchangeError",
    "UnknownGroupError",
    "UnknownQueueError",
    "UnknownTopicError",
    "UnroutableError",
    "VerifyReport",
    "VirtualClock",
    "WaitTimeoutError",
    "Worker",
    "open",
    "repair",
    "verify",
]
