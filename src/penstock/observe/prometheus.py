"""Metrics for Prometheus. Needs the extra `metrics` (prometheus-client)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from penstock.metrics import Histogram
from penstock.observe.instruments import ALL, Instrument, Labels, bounds_of, samples

if TYPE_CHECKING:
    from penstock.queues.broker import Broker

Values = list[tuple[Labels, float | Histogram]]


class PrometheusCollector(Collector):
    """Everything in a broker's directory, of all processes: `REGISTRY.register(PrometheusCollector(broker))`.

    Each scrape takes a snapshot. The names are in the documentation.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def describe(self) -> Iterable[Metric]:
        """The metrics without values, so that registering looks at nothing."""
        return [_family(instrument, []) for instrument in ALL]

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        return [_family(instrument, values) for instrument, values in samples(self._broker.metrics()).items()]


def _family(instrument: Instrument, values: Values) -> Metric:
    if instrument.kind == "histogram":
        return _histogram_family(instrument, values)
    kind = CounterMetricFamily if instrument.kind == "counter" else GaugeMetricFamily
    family = kind(instrument.full_name, instrument.description, labels=instrument.labels)
    for labels, value in values:
        family.add_metric([labels[name] for name in instrument.labels], float(value))  # type: ignore[arg-type]
    return family


def _histogram_family(instrument: Instrument, values: Values) -> Metric:
    family = HistogramMetricFamily(instrument.full_name, instrument.description, labels=instrument.labels)
    bounds = bounds_of(instrument)
    for labels, value in values:
        assert isinstance(value, Histogram)
        counts = zip(bounds, value.cumulative(bounds), strict=True)
        buckets = [(_go(bound), float(count)) for bound, count in counts]
        family.add_metric(
            [labels[name] for name in instrument.labels], [*buckets, ("+Inf", float(value.count))], value.total
        )
    return family


def _go(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def exposition(broker: Broker) -> str:
    """The metrics now, in Prometheus' text format."""
    return generate_latest(_registry(broker)).decode()


def serve(broker: Broker, host: str = "127.0.0.1", port: int = 9464) -> tuple[str, int, object, object]:
    """Answer scrapes in a thread; returns (host, port, server, thread). `server.shutdown()` ends it.

    Anybody who can reach the address can read the names of topics: keep to the loopback unless that is wanted.
    """
    server, thread = start_http_server(port, host, _registry(broker))
    return host, server.server_port, server, thread


def _registry(broker: Broker) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(broker))
    return registry
