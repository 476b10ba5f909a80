"""The names under which metrics are exported: one table for every exporter, and for the documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from penstock.metrics import Histogram, Metrics

Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. Its full name is `penstock_<subject>_<name>`; counters end in `_total` where that is the custom."""

    subject: str
    """topic, partition, group, queue, share_group or producer."""
    name: str
    kind: str
    """counter, gauge or histogram."""
    unit: str
    """In UCUM's notation, as OpenTelemetry wants it: s, By, {record}."""
    description: str
    read: Callable[[Any], Any]
    """From the part of a snapshot to a number, a `Histogram`, or a dict of numbers by the label `by`."""
    by: str = ""

    @property
    def full_name(self) -> str:
        """`penstock_topic_records_appended`."""
        return f"penstock_{self.subject}_{self.name}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        return (*SUBJECTS[self.subject], self.by) if self.by else SUBJECTS[self.subject]


SUBJECTS = {
    "topic": ("topic",),
    "partition": ("topic", "partition"),
    "group": ("group",),
    "group_partition": ("group", "topic", "partition"),
    "queue": ("queue",),
    "share_group": ("topic", "group"),
    "producer": ("producer_id",),
}
_DURATIONS = [base * 10.0**power for power in range(-7, 6) for base in (1, 2.5, 5)]
_COUNTS = [4.0**power for power in range(14)]


def bounds_of(instrument: Instrument) -> list[float]:
    """Upper bounds of the buckets in which a histogram is exported."""
    if instrument.unit != "s":
        return _COUNTS
    most = 1e5 if instrument.name in ("wait_duration_seconds", "processing_duration_seconds") else 10
    return [bound for bound in _DURATIONS if bound <= most]


def _counter(subject: str, name: str, unit: str, description: str, field: str = "") -> Instrument:
    wanted = field or name
    return Instrument(subject, name, "counter", unit, description, lambda part: getattr(part, wanted))


def _gauge(subject: str, name: str, unit: str, description: str, field: str = "") -> Instrument:
    wanted = field or name
    return Instrument(subject, name, "gauge", unit, description, lambda part: getattr(part, wanted))


def _histogram(subject: str, name: str, unit: str, description: str, field: str) -> Instrument:
    return Instrument(subject, name, "histogram", unit, description, lambda part: getattr(part, field))


TOPIC = (
    _counter("topic", "records_appended", "{record}", "Records stored"),
    _counter("topic", "appended_bytes", "By", "Bytes of batches stored, as stored", "bytes_appended"),
    _counter("topic", "compression_saved_bytes", "By", "Bytes that compression took off them", "bytes_saved"),
    _counter("topic", "batches_appended", "{batch}", "Batches stored"),
    _counter("topic", "records_read", "{record}", "Records delivered to consumers"),
    _counter("topic", "read_bytes", "By", "Bytes of stored batches that consumers took", "bytes_read"),
    _counter("topic", "polls", "{poll}", "Polls that returned something"),
    _counter("topic", "fsyncs", "{fsync}", "How often a log was forced to the disk", "syncs"),
    Instrument("topic", "errors", "counter", "{error}", "Calls that failed, by kind", lambda part: part.errors, "kind"),
    _gauge("topic", "records", "{record}", "Offsets between the log's start and its end"),
    _gauge("topic", "size_bytes", "By", "Bytes on disk"),
    _histogram("topic", "append_duration_seconds", "s", "Storing a batch, without fsync", "append_latency"),
    _histogram(
        "topic", "poll_duration_seconds", "s", "A poll that returned something, without waiting", "poll_latency"
    ),
    _histogram("topic", "fsync_duration_seconds", "s", "Forcing a log to the disk", "fsync_latency"),
    _histogram("topic", "batch_records", "{record}", "Records of a stored batch", "batch_records"),
    _histogram("topic", "batch_size_bytes", "By", "Bytes of a stored batch", "batch_bytes"),
)
PARTITION = (
    _gauge("partition", "log_start_offset", "{offset}", "First offset that can be read"),
    _gauge("partition", "log_end_offset", "{offset}", "Offset of the next record"),
)
GROUP = (
    _gauge("group", "members", "{member}", "Consumers in the group"),
    _counter("group", "rebalances", "{rebalance}", "How often partitions were assigned anew"),
    _counter("group", "commits", "{commit}", "Commits that moved an offset"),
    _counter("group", "commits_refused", "{commit}", "Commits of partitions that another member had by then"),
)
GROUP_PARTITION = (
    _gauge("group_partition", "lag_records", "{record}", "Records stored and not committed", "lag"),
    _gauge("group_partition", "lag_seconds", "s", "Age of the next record to read", "lag_s"),
)


def _states(part: Any) -> dict[str, int]:
    return {state: getattr(part, state) for state in ("ready", "in_flight", "delayed", "dead")}


def _queue(subject: str) -> tuple[Instrument, ...]:
    def counter(name: str, description: str, field: str) -> Instrument:
        return _counter(subject, name, "{message}", description, field)

    return (
        Instrument(subject, "messages", "gauge", "{message}", "Messages now, by state", _states, "state"),
        _gauge(subject, "oldest_message_age_seconds", "s", "Age of the oldest unsettled message", "age_of_oldest_s"),
        counter("messages_sent", "Messages sent", "sent"),
        counter("messages_received", "Deliveries", "received"),
        counter("messages_redelivered", "Deliveries of messages delivered before", "redelivered"),
        counter("messages_acknowledged", "Messages acknowledged", "acknowledged"),
        counter("messages_nacked", "Deliveries that failed", "nacked"),
        counter("messages_released", "Deliveries given back without a failure", "released"),
        counter("messages_timed_out", "Deliveries not settled in time", "timed_out"),
        counter("messages_dead_lettered", "Messages rejected, or that failed too often", "dead_lettered"),
        counter("messages_expired", "Messages past their time to live", "expired"),
        counter("messages_dropped", "Messages dropped for a limit of length", "dropped"),
        counter("stale_settlements", "Settlements refused: the message was received again", "stale"),
        _histogram(subject, "wait_duration_seconds", "s", "From sending to receiving", "wait"),
        _histogram(subject, "processing_duration_seconds", "s", "From receiving to acknowledging", "processing"),
        _histogram(subject, "receive_messages", "{message}", "Messages that one call received", "receive_batch"),
    )


QUEUE = _queue("queue")
SHARE_GROUP = _queue("share_group")
PRODUCER = (
    _gauge("producer", "buffered_records", "{record}", "Records accepted and not yet stored, of this process"),
    _gauge("producer", "buffered_bytes", "By", "Bytes of them"),
)
ALL = (*TOPIC, *PARTITION, *GROUP, *GROUP_PARTITION, *QUEUE, *SHARE_GROUP, *PRODUCER)


def _parts(metrics: Metrics) -> Iterator[tuple[tuple[Instrument, ...], Any, Labels]]:
    for topic in metrics.topics.values():
        yield TOPIC, topic, {"topic": topic.name}
        for partition in topic.partitions:
            yield PARTITION, partition, {"topic": topic.name, "partition": str(partition.partition)}
    for group in metrics.groups.values():
        yield GROUP, group, {"group": group.name}
        for row in group.partitions:
            labels = {"group": group.name, "topic": row.topic, "partition": str(row.partition)}
            yield GROUP_PARTITION, row, labels
    for queue in metrics.queues.values():
        yield QUEUE, queue, {"queue": queue.name}
    for (name, share), part in metrics.share_groups.items():
        yield SHARE_GROUP, part, {"topic": name, "group": share}
    for producer in metrics.producers:
        yield PRODUCER, producer, {"producer_id": str(producer.producer_id)}


Samples = dict[Instrument, list[tuple[Labels, float | Histogram]]]


def samples(metrics: Metrics) -> Samples:
    """Every value of a snapshot by its instrument, with labels. What is not known is left out."""
    found: Samples = {instrument: [] for instrument in ALL}
    for instruments, part, labels in _parts(metrics):
        for instrument in instruments:
            value = instrument.read(part)
            if isinstance(value, dict):
                found[instrument] += [({**labels, instrument.by: name}, one) for name, one in value.items()]
            elif value is not None:
                found[instrument].append((labels, value))
    return found
