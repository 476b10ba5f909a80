"""Metrics for OpenTelemetry. Needs the extra `tracing` (opentelemetry-api); the SDK and the exporter are yours."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from penstock.metrics import Histogram
from penstock.observe.instruments import ALL, Instrument, Samples, samples

if TYPE_CHECKING:
    from penstock.queues.broker import Broker

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_SHARED_S = 0.1  # instruments that are asked one after another see one snapshot


class _Snapshots:
    """One snapshot for all the instruments of a collection."""

    def __init__(self, broker: Broker) -> None:
        self._broker = weakref.ref(broker)  # a meter provider lives as long as the process
        self._lock = threading.Lock()
        self._taken_s = -1.0
        self._samples: Samples = {}

    def of(self, instrument: Instrument) -> list[tuple[dict[str, str], float | Histogram]]:
        with self._lock:
            broker = self._broker()
            if broker is None or broker.closed:
                self._samples = {}
                return []
            now = broker.clock.monotonic()
            if not self._samples or not 0 <= now - self._taken_s < _SHARED_S:
                self._samples, self._taken_s = samples(broker.metrics()), now
            return self._samples[instrument]


def instrument_metrics(broker: Broker, meter_provider: MeterProvider | None = None) -> None:
    """Make an observable instrument of every metric: `penstock.topic.records_appended`, ... until the broker is closed.

    A distribution becomes three: `<name>.count` and `<name>.sum` (counters) and `<name>`, a gauge of its percentiles by
    the attribute `percentile`. `meter_provider`: default the global one.
    """
    meter = (meter_provider or get_meter_provider()).get_meter("penstock")
    snapshots = _Snapshots(broker)
    for one in ALL:
        name = f"penstock.{one.subject}.{one.name}"
        if one.kind == "counter":
            meter.create_observable_counter(name, [_numbers(snapshots, one)], one.unit, one.description)
        elif one.kind == "gauge":
            meter.create_observable_gauge(name, [_numbers(snapshots, one)], one.unit, one.description)
        else:
            meter.create_observable_counter(f"{name}.count", [_counts(snapshots, one)], "1", one.description)
            meter.create_observable_counter(f"{name}.sum", [_sums(snapshots, one)], one.unit, one.description)
            meter.create_observable_gauge(name, [_percentiles(snapshots, one)], one.unit, one.description)


Callback = Callable[[CallbackOptions], Iterable[Observation]]


def _numbers(snapshots: _Snapshots, instrument: Instrument) -> Callback:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(value, labels) for labels, value in snapshots.of(instrument) if not isinstance(value, Histogram)
        ]

    return observe


def _of_histograms(
    snapshots: _Snapshots, instrument: Instrument, read: Callable[[Histogram], float]
) -> Iterable[Observation]:
    return [
        Observation(read(value), labels) for labels, value in snapshots.of(instrument) if isinstance(value, Histogram)
    ]


def _counts(snapshots: _Snapshots, instrument: Instrument) -> Callback:
    return lambda _: _of_histograms(snapshots, instrument, lambda histogram: histogram.count)


def _sums(snapshots: _Snapshots, instrument: Instrument) -> Callback:
    return lambda _: _of_histograms(snapshots, instrument, lambda histogram: histogram.total)


def _percentiles(snapshots: _Snapshots, instrument: Instrument) -> Callback:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(value.percentile(percent), {**labels, "percentile": f"{percent:g}"})
            for labels, value in snapshots.of(instrument)
            if isinstance(value, Histogram) and value.count
            for percent in PERCENTILES
        ]

    return observe
