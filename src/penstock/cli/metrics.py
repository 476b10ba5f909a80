"""`penstock metrics`: what there is and what was counted: a table, JSON, Prometheus text, or served for scraping."""

from __future__ import annotations

import enum
import threading
import time
from typing import Annotated, Any

import typer

import penstock
from penstock.cli.options import DATA_DEFAULT, Data, Json, existing
from penstock.cli.output import bytes_text, note, print_json, print_table, say
from penstock.metrics import Histogram, Metrics, QueueMetrics, QueueRates, Rates


class Format(enum.StrEnum):
    """What is printed."""

    TABLE = "table"
    JSON = "json"
    PROMETHEUS = "prometheus"


def metrics(
    data: Data = DATA_DEFAULT,
    format: Annotated[Format, typer.Option("--format", help="table, json or prometheus.")] = Format.TABLE,
    json: Json = False,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0, help="Look twice, so long apart, and show rates as well.")
    ] = 0.0,
    serve: Annotated[
        str | None,
        typer.Option("--serve", metavar="[HOST:]PORT", help="Answer Prometheus' scrapes; the host is the loopback."),
    ] = None,
) -> None:
    """Metrics of topics, groups and queues, of all processes."""
    with penstock.open(existing(data)) as broker:
        if serve is not None:
            _serve(broker, *_address(serve))
        elif format is Format.PROMETHEUS and not json:
            typer.echo(_prometheus().exposition(broker), nl=False)
        else:
            before = broker.metrics()
            if seconds:
                time.sleep(seconds)
            after = broker.metrics() if seconds else before
            if json or format is Format.JSON:
                print_json(after.to_dict())
            else:
                _print(after, after.since(before) if seconds else None)


def _prometheus() -> Any:
    try:
        from penstock.observe import prometheus
    except ImportError as error:
        raise typer.BadParameter("Prometheus' format needs the extra: pip install 'penstock[metrics]'") from error
    return prometheus


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise typer.BadParameter(f"{text!r} is not [HOST:]PORT", param_hint="--serve")
    return host.strip("[]") or "127.0.0.1", int(port)


def _serve(broker: penstock.Broker, host: str, port: int) -> None:
    host, port, server, _ = _prometheus().serve(broker, host, port)
    try:
        say(f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics")
        note("Ctrl-C ends it")
        threading.Event().wait()
    finally:
        server.shutdown()
        server.server_close()


# --- the table -----------------------------------------------------------------------------------------------------


def _print(metrics: Metrics, rates: Rates | None) -> None:
    if not metrics.topics:
        say("no topics")
        return
    _print_topics(metrics, rates)
    if metrics.groups:
        _print_groups(metrics, rates)
    found = [(one.name, one, rates.queues[one.name] if rates else None) for one in metrics.queues.values()]
    found += [
        (f"{topic}/{group}", one, rates.share_groups[topic, group] if rates else None)
        for (topic, group), one in metrics.share_groups.items()
    ]
    if found:
        _print_queues(found)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:,.1f}"


def _ms(histogram: Histogram) -> str:
    return f"{histogram.percentile(99) * 1000:,.3f}" if histogram.count else "-"


def _seconds(value: float) -> str:
    return f"{value:,.1f}"


def _print_topics(metrics: Metrics, rates: Rates | None) -> None:
    rows = []
    for topic in metrics.topics.values():
        rate = rates.topics[topic.name] if rates else None
        rows.append(
            (
                topic.name, len(topic.partitions), f"{topic.records:,}", bytes_text(topic.size_bytes),
                f"{topic.records_appended:,}", f"{topic.records_read:,}", f"{topic.compression_ratio:.1f}",
                _ms(topic.append_latency), _ms(topic.fsync_latency), f"{topic.failed:,}",
                _rate(rate.records_appended_per_s if rate else None), _rate(rate.records_read_per_s if rate else None),
            )
        )  # fmt: skip
    columns = (
        "TOPIC", "PARTITIONS", "RECORDS", "SIZE", "APPENDED", "READ", "RATIO", "P99 APPEND MS", "P99 FSYNC MS",
        "ERRORS", "IN/S", "OUT/S",
    )  # fmt: skip
    print_table(columns, rows, numbers=range(1, 12))


def _print_groups(metrics: Metrics, rates: Rates | None) -> None:
    rows = []
    for group in metrics.groups.values():
        rate = rates.groups[group.name] if rates else None
        catch_up = "-" if rate is None else _seconds(rate.catch_up_s)
        rows.append(
            (
                group.name, group.members, f"{group.lag:,}", _seconds(group.lag_s), f"{group.commits:,}",
                f"{group.rebalances:,}", _rate(rate.consumed_per_s if rate else None), catch_up,
            )
        )  # fmt: skip
    say("")
    columns = ("GROUP", "MEMBERS", "LAG", "LAG SECONDS", "COMMITS", "REBALANCES", "CONSUMED/S", "CATCH UP SECONDS")
    print_table(columns, rows, numbers=range(1, 8))


def _print_queues(found: list[tuple[str, QueueMetrics, QueueRates | None]]) -> None:
    rows = []
    for name, queue, rate in found:
        rows.append(
            (
                name, *(f"{n:,}" for n in (queue.ready, queue.in_flight, queue.delayed, queue.dead)),
                _seconds(queue.age_of_oldest_s),
                *(f"{n:,}" for n in (queue.received, queue.acknowledged, queue.failures)), _ms(queue.processing),
                _rate(rate.sent_per_s if rate else None), _rate(rate.acknowledged_per_s if rate else None),
            )
        )  # fmt: skip
    say("")
    columns = (
        "QUEUE", "READY", "IN FLIGHT", "DELAYED", "DEAD", "OLDEST S", "RECEIVED", "ACKED", "FAILED",
        "P99 PROCESSING MS", "SENT/S", "ACKED/S",
    )  # fmt: skip
    print_table(columns, rows, numbers=range(1, 12))
