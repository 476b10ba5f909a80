"""What `Broker.metrics` returns: plain, frozen values, without a connection to anything.

`histogram` (distributions), `snapshot` (what there is now, and what was counted so far), `rates` (what happened between
two snapshots).
"""

from penstock.metrics.histogram import Histogram
from penstock.metrics.rates import GroupRates, QueueRates, Rates, TopicRates
from penstock.metrics.snapshot import (
    GroupMetrics,
    GroupPartitionMetrics,
    Metrics,
    PartitionMetrics,
    ProducerMetrics,
    QueueMetrics,
    TopicMetrics,
)

__all__ = [
    "GroupMetrics",
    "GroupPartitionMetrics",
    "GroupRates",
    "Histogram",
    "Metrics",
    "PartitionMetrics",
    "ProducerMetrics",
    "QueueMetrics",
    "QueueRates",
    "Rates",
    "TopicMetrics",
    "TopicRates",
]
