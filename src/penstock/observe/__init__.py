"""Looking at a running engine: metrics and their exporters, traces, alerts.

- `Broker.metrics()` returns `Metrics`; its parts are exported here too.
- `Alerts`: thresholds that call back.
- `penstock.observe.prometheus`, `penstock.observe.opentelemetry`: exporters (extras `metrics`, `tracing`).
- `penstock.observe.tracing`: spans by OpenTelemetry's messaging conventions (extra `tracing`).
"""

from penstock import metrics
from penstock.metrics import *  # noqa: F403
from penstock.observe.alerts import Alert, Alerts

__all__ = ["Alert", "Alerts"]
__all__ += metrics.__all__
