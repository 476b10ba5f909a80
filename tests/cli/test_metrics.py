"""`penstock metrics`: the table, JSON, Prometheus text, and serving."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock

pytest.importorskip("prometheus_client")
Invoke = Callable[..., Any]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    with penstock.open(path) as broker:
        topic = broker.create_topic("orders", partitions=2)
        for number in range(10):
            topic.append(b"v" * 100, partition=number % 2)
        with broker.consumer("orders", group="billing") as consumer:
            assert len(consumer.poll(max_records=4)) == 4
        queue = broker.queue("emails")
        queue.send_many([b"m"] * 3)
        queue.receive(1)[0].ack()
        broker.share_consumer("orders", "workers").receive(2)
    return path


def ok(result: Any) -> str:
    assert result.exit_code == 0, result.output
    text: str = result.stdout
    return text


def test_table(invoke: Invoke, filled: Path) -> None:
    lines = [line.split() for line in ok(invoke("metrics")).splitlines() if line]
    assert lines[0][:3] == ["TOPIC", "PARTITIONS", "RECORDS"]
    by_name = {line[0]: line for line in lines}
    assert by_name["orders"][1:3] == ["2", "10"]
    assert by_name["billing"][1:3] == ["0", "6"]
    assert by_name["orders/workers"][1:3] == ["8", "2"]
    assert [line for line in lines if line[0] == "emails"][1][1:3] == ["2", "0"]
    assert "0.0" in ok(invoke("metrics", "--seconds", "0.05"))


def test_json(invoke: Invoke, filled: Path) -> None:
    document = json.loads(ok(invoke("metrics", "--json")))
    assert document["topics"] == json.loads(ok(invoke("metrics", "--format", "json")))["topics"]
    (orders,) = [topic for topic in document["topics"] if topic["name"] == "orders"]
    assert orders["records_appended"] == 10


def test_prometheus(invoke: Invoke, filled: Path) -> None:
    text = ok(invoke("metrics", "--format", "prometheus"))
    assert 'penstock_topic_records_appended_total{topic="orders"} 10.0' in text.splitlines()


def test_nothing_there(invoke: Invoke, tmp_path: Path) -> None:
    penstock.open(tmp_path / "data").close()
    assert ok(invoke("metrics")) == "no topics\n"


@pytest.mark.parametrize("address", ["x", "127.0.0.1", "1:2:x", "70000", ":"])
def test_bad_addresses(invoke: Invoke, filled: Path, address: str) -> None:
    result = invoke("metrics", "--serve", address)
    assert result.exit_code == 2
    assert "HOST" in result.output


def test_serving(filled: Path) -> None:
    environment = {**os.environ, "PENSTOCK_DATA": str(filled)}
    command = [sys.executable, "-u", "-m", "penstock.cli", "metrics", "--serve", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            url = child.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(url, timeout=20) as answer:
                text = answer.read().decode()
        finally:
            child.terminate()
    assert 'penstock_queue_messages{queue="emails",state="ready"} 2.0' in text.splitlines()
