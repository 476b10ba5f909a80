"""What is exported is what the snapshot says, read back by each exporter's own means."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest

import penstock
from penstock.observe.instruments import ALL, samples

prometheus_client = pytest.importorskip("prometheus_client")
sdk = pytest.importorskip("opentelemetry.sdk.metrics")

from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from penstock.observe.opentelemetry import instrument_metrics  # noqa: E402
from penstock.observe.prometheus import PrometheusCollector, exposition, serve  # noqa: E402


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels."""
    families = text_string_to_metric_families(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_names_are_unique_and_name_their_units() -> None:
    names = [instrument.full_name for instrument in ALL]
    assert len(set(names)) == len(names)
    for instrument in ALL:
        assert instrument.unit != "s" or instrument.name.endswith("_seconds")
        assert instrument.unit != "By" or instrument.name.endswith("_bytes")
        assert instrument.description[0].isupper()


def test_prometheus(busy: penstock.Broker) -> None:
    found = parsed(exposition(busy))

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    metrics = busy.metrics()
    orders = metrics.topics["orders"]
    assert value("penstock_topic_records_appended_total", topic="orders") == 100
    assert value("penstock_topic_appended_bytes_total", topic="orders") == orders.bytes_appended
    assert value("penstock_topic_errors_total", topic="orders", kind="corruption") == 0
    assert value("penstock_partition_log_end_offset", topic="orders", partition="1") == 50
    assert value("penstock_group_partition_lag_records", group="billing", topic="orders", partition="0") == 10
    assert value("penstock_group_partition_lag_seconds", group="billing", topic="orders", partition="1") == 5
    assert value("penstock_queue_messages", queue="emails", state="ready") == 5
    assert value("penstock_queue_messages", queue="emails", state="dead") == 1
    assert value("penstock_queue_oldest_message_age_seconds", queue="emails") == 5
    assert value("penstock_share_group_messages_acknowledged_total", topic="orders", group="workers") == 10
    assert value("penstock_topic_batch_records_count", topic="orders") == 100
    assert value("penstock_topic_batch_records_sum", topic="orders") == 100
    assert value("penstock_topic_batch_records_bucket", topic="orders", le="1.0") == 100
    assert value("penstock_topic_append_duration_seconds_bucket", topic="orders", le="+Inf") == (
        orders.append_latency.count
    )


def test_prometheus_buckets_never_fall(busy: penstock.Broker) -> None:
    series: dict[Any, list[tuple[float, float]]] = {}
    for (name, labels), value in parsed(exposition(busy)).items():
        if name.endswith("_bucket"):
            bound = dict(labels)["le"]
            series.setdefault((name, labels - {("le", bound)}), []).append((float(bound), value))
    assert series
    for values in series.values():
        counts = [count for _, count in sorted(values)]
        assert counts == sorted(counts)


def test_registering_looks_at_nothing(broker: penstock.Broker) -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(PrometheusCollector(broker))
    assert broker._metrics_reader is None
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(PrometheusCollector(broker))


def test_scraping(busy: penstock.Broker) -> None:
    host, port, server, thread = serve(busy, port=0)
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
            found = parsed(answer.read().decode())
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert host == "127.0.0.1"
    assert found["penstock_topic_records_appended_total", frozenset({("topic", "orders")})] == 100


def numbers(reader: Any) -> dict[tuple[str, frozenset[Any]], float]:
    """What an SDK collects: values by name and attributes."""
    data = reader.get_metrics_data()
    found: dict[tuple[str, frozenset[Any]], float] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics if data is not None else ():
        assert metric.unit == "s" or not metric.name.endswith("_seconds")
        for point in metric.data.data_points:
            found[metric.name, frozenset(point.attributes.items())] = point.value
    return found


def test_opentelemetry(busy: penstock.Broker) -> None:
    reader = InMemoryMetricReader()
    provider = sdk.MeterProvider(metric_readers=[reader])
    instrument_metrics(busy, provider)
    found = numbers(reader)
    assert found["penstock.topic.records_appended", frozenset({("topic", "orders")})] == 100
    assert found["penstock.queue.messages", frozenset({("queue", "emails"), ("state", "in_flight")})] == 1
    assert found["penstock.topic.batch_records.count", frozenset({("topic", "orders")})] == 100
    assert found["penstock.topic.batch_records.sum", frozenset({("topic", "orders")})] == 100
    median = found["penstock.topic.batch_records", frozenset({("topic", "orders"), ("percentile", "50")})]
    assert median == 1
    for instrument, values in samples(busy.metrics()).items():
        if instrument.kind == "counter":
            name = f"penstock.{instrument.subject}.{instrument.name}"
            assert len([one for one, _ in found if one == name]) == len(values)
    busy.close()
    assert not numbers(reader), "a closed broker has nothing to say"
    provider.shutdown()
