"""`penstock bench`: a short benchmark of this machine and this disk."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import penstock
from penstock.cli.options import DATA_DEFAULT, Data, Json
from penstock.cli.output import bytes_text, print_json, print_table, say
from penstock.cli.progress import ProgressBar

TOPIC = "bench"
MOST_SINGLE = 200_000  # records of the one-at-a-time measurements


def bench(
    data: Data = DATA_DEFAULT,
    records: Annotated[
        int, typer.Option("--records", min=1000, max=100_000_000, help="Records to measure with.")
    ] = 1_000_000,
    size_bytes: Annotated[int, typer.Option("--size", min=1, max=1_000_000, help="Bytes of a value.")] = 100,
    json: Json = False,
) -> None:
    """Measure throughput on the disk of the data directory, in a temporary directory beside it."""
    beside = data.absolute().parent
    if not beside.is_dir():
        raise typer.BadParameter(f"{str(beside)!r} is not a directory", param_hint="--data")
    scratch = Path(tempfile.mkdtemp(prefix="penstock-bench-", dir=beside))
    try:
        results = _measure(scratch, records, size_bytes)
    finally:
        shutil.rmtree(scratch)
    environment = {
        "penstock": penstock.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "directory": str(beside),
    }
    if json:
        print_json({"environment": environment, "value_bytes": size_bytes, "results": results})
        return
    say(", ".join(f"{name} {value}" for name, value in environment.items()), style="dim")
    rows = []
    for entry in results:
        rates = f"{entry['records_per_second']:,.0f}", f"{bytes_text(entry['bytes_per_second'])}/s"
        rows.append((entry["name"], f"{entry['records']:,}", *rates))
    print_table((f"{size_bytes}-BYTE VALUES", "RECORDS", "RECORDS/S", "BYTES/S"), rows, numbers=(1, 2, 3))


def _measure(scratch: Path, records: int, size_bytes: int) -> list[dict[str, Any]]:
    values = [b"%0*d" % (size_bytes, number) for number in range(min(records, 100_000))]
    few = values[: min(len(values), MOST_SINGLE)]
    results: list[dict[str, Any]] = []
    with penstock.open(scratch / "data", fsync="never") as broker, ProgressBar("measuring", 5) as bar:
        broker.create_topic(TOPIC, max_message_bytes=max(1 << 20, 2 * size_bytes))
        broker.create_topic("single", max_message_bytes=max(1 << 20, 2 * size_bytes))
        measurements: list[tuple[str, Callable[[], int]]] = [
            ("send_many until flushed", lambda: _send_many(broker, values, records)),
            ("send one at a time until flushed", lambda: _send(broker, few)),
            ("append one at a time, stored", lambda: _append(broker, few)),
            ("poll_batches, values", lambda: _read_values(broker)),
            ("iteration, records", lambda: _read_records(broker, min(records, 1_000_000))),
        ]
        for done, (name, measure) in enumerate(measurements, 1):
            started = time.perf_counter()
            count = measure()
            seconds = time.perf_counter() - started
            total_bytes = count * len(values[0])
            bar.update(done, count, total_bytes)
            rates = {"records_per_second": count / seconds, "bytes_per_second": total_bytes / seconds}
            results.append({"name": name, "records": count, "seconds": seconds, **rates})
    return results


def _send_many(broker: penstock.Broker, values: list[bytes], records: int) -> int:
    sent = 0
    with broker.producer() as producer:
        while sent < records:
            part = values[: records - sent]
            producer.send_many(TOPIC, part)
            sent += len(part)
        producer.flush()
    return sent


def _send(broker: penstock.Broker, values: list[bytes]) -> int:
    with broker.producer() as producer:
        send = producer.send
        for value in values:
            send("single", value)
        producer.flush()
    return len(values)


def _append(broker: penstock.Broker, values: list[bytes]) -> int:
    append = broker.topic("single").append
    for value in values:
        append(value)
    return len(values)


def _read_values(broker: penstock.Broker) -> int:
    count = 0
    with broker.consumer(TOPIC) as consumer:
        while batches := consumer.poll_batches(timeout=0):
            for batch in batches:
                count += len(batch.values())
    return count


def _read_records(broker: penstock.Broker, most: int) -> int:
    with broker.consumer(TOPIC) as consumer:
        for count, _ in enumerate(consumer, 1):
            if count == most:
                return count
    return 0
