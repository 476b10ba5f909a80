"""Looking at a running engine: metrics and their exporters, traces, alerts.

- `Broker.metrics()` returns `Metrics`; its parts are exported here too.
- `Alerts`: thresholds that call back.
- `penstock.observe.prometheus`, `penstock.observe.opentelemetry`: exporters (extras `metrics`, `tracing`).
- `penstock.observe.tracing`: spans by OpenTelemetry's messaging conventions (extra `tracing`).
"""

from penstock.metrics import (
    GroupMetrics,
    GroupPartitionMetrics,
    GroupRates,
    Histogram,
    Metrics,
    PartitionMetrics,
    ProducerMetrics,
    QueueMetrics,
    QueueRates,
    Rates,
    TopicMetrics,
    TopicRates,
)
from penstock.observe.alerts import Alert, Alerts

__all__ = [
    "Alert",
    "Alerts",
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
