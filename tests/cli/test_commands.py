"""The commands on a small directory: what they print, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock

Invoke = Callable[..., Any]


@pytest.fixture
def orders(tmp_path: Path, invoke: Invoke) -> Path:
    """A CSV of 50 orders, stored in the topic `orders`."""
    path = tmp_path / "orders.csv"
    path.write_text("order,customer\n" + "".join(f"o-{number},c-{number % 7}\n" for number in range(50)))
    result = invoke("produce", "orders", path, "--key", "customer", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["records"] == 50
    return path


def segment(tmp_path: Path, topic: str = "orders") -> Path:
    return next(path for path in sorted((tmp_path / "data").glob(f"{topic}-*/*.log")) if path.stat().st_size > 100)


def test_lines_come_back_as_they_were(tmp_path: Path, invoke: Invoke) -> None:
    data = b"one\r\n\n\xff\0two\nlast without an end"
    (tmp_path / "lines").write_bytes(data)
    assert invoke("produce", "lines", tmp_path / "lines", "--partitions", "1").exit_code == 0
    result = invoke("consume", "lines")
    assert (result.exit_code, result.stdout_bytes) == (0, data + b"\n")
    assert "read 4 records" in result.stderr


def test_stdin(invoke: Invoke) -> None:
    result = invoke("produce", "lines", "-", "--partitions", "1", input=b"a\nb\n")
    assert result.exit_code == 0, result.output
    assert invoke("consume", "lines").stdout_bytes == b"a\nb\n"


def test_csv_with_keys(orders: Path, invoke: Invoke) -> None:
    result = invoke("consume", "orders", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert sorted(json.loads(record["value"])["order"] for record in records) == sorted(f"o-{n}" for n in range(50))
    assert all(json.loads(record["value"])["customer"] == record["key"] for record in records)
    places: dict[str, set[int]] = {}
    for record in records:
        places.setdefault(record["key"], set()).add(record["partition"])
    assert all(len(numbers) == 1 for numbers in places.values())


@pytest.mark.parametrize("codec", ["none", "gzip", "lz4"])
def test_compression(tmp_path: Path, invoke: Invoke, codec: str) -> None:
    (tmp_path / "lines").write_text("the same line\n" * 1000)
    assert invoke("produce", "lines", tmp_path / "lines", "--compression", codec, "--partitions", 1).exit_code == 0
    assert invoke("consume", "lines").stdout == "the same line\n" * 1000
    batches = [json.loads(line) for line in invoke("dump", segment(tmp_path, "lines"), "--json").stdout.splitlines()]
    assert {batch["codec"] for batch in batches} == {codec}


def test_where_to_start_and_how_much(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "lines").write_text("".join(f"{number}\n" for number in range(10)))
    invoke("produce", "lines", tmp_path / "lines", "--partitions", "2")
    with penstock.open(tmp_path / "data") as broker:
        topic = broker.create_topic("times")
        for number in range(10):
            topic.append(b"%d" % number, timestamp_ms=1_000_000 + number * 1000)
    assert invoke("consume", "times", "--from", "7").stdout == "7\n8\n9\n"
    assert invoke("consume", "times", "--from", "1970-01-01T00:16:48Z").stdout == "8\n9\n"
    assert invoke("consume", "times", "--from", "@1005000", "--max", "2").stdout == "5\n6\n"
    assert invoke("consume", "times", "--max", "3", "--json").stdout.count("\n") == 3
    latest = invoke("consume", "times", "--from", "latest")
    assert (latest.exit_code, latest.stdout) == (0, "")
    whole = [
        int(line) for number in (0, 1) for line in invoke("consume", "lines", "--partition", number).stdout.split()
    ]
    assert sorted(whole) == list(range(10))


def test_formats_show_everything(tmp_path: Path, invoke: Invoke) -> None:
    with penstock.open(tmp_path / "data") as broker:
        topic = broker.create_topic("all")
        topic.append(b"\xff\n", key=b"k", headers=[("h", b"1"), ("n", None)], timestamp_ms=0)
        topic.append(None, timestamp_ms=0)
    first, second = map(json.loads, invoke("consume", "all", "--format", "json").stdout.splitlines())
    assert first["value_base64"] == "/wo="
    assert (first["key"], first["headers"]) == ("k", [{"name": "h", "value": "1"}, {"name": "n", "value": None}])
    assert (second["value"], second["key"], second["offset"]) == (None, None, 1)
    full = invoke("consume", "all", "--format", "full").stdout.splitlines()
    assert full[0] == "all-0@0  1970-01-01T00:00:00.000Z  key=k  h=1  n=null  \\xff\\n"
    assert full[1].endswith("null")
    assert invoke("consume", "all").stdout_bytes == b"\xff\n\n\n"


def test_topics(tmp_path: Path, invoke: Invoke) -> None:
    assert invoke("topics", "create", "a", "--partitions", 2, "--config", "retention_ms=5000").exit_code == 0
    assert invoke("topics", "create", "b", "--config", "compression.type=lz4").exit_code == 0
    listed = json.loads(invoke("topics", "list", "--json").stdout)
    assert [(topic["name"], len(topic["partitions"]), topic["records"]) for topic in listed] == [
        ("a", 2, 0),
        ("b", 1, 0),
    ]
    assert invoke("topics", "alter", "a", "--partitions", 3, "--config", "retention_ms=-1").exit_code == 0
    described = json.loads(invoke("topics", "describe", "a", "--json").stdout)
    assert (len(described["partitions"]), described["config"]["retention_ms"]) == (3, -1)
    assert "compression_type" in invoke("topics", "describe", "b").stdout
    assert invoke("topics", "delete", "a").exit_code == 0
    assert [topic["name"] for topic in json.loads(invoke("topics", "list", "--json").stdout)] == ["b"]
    assert "b" in invoke("topics", "list").stdout


def test_dump(orders: Path, tmp_path: Path, invoke: Invoke) -> None:
    path = segment(tmp_path)
    batches = [json.loads(line) for line in invoke("dump", path, "--json").stdout.splitlines()]
    records = [json.loads(line) for line in invoke("dump", path, "--records", "--json").stdout.splitlines()]
    assert sum(batch["count"] for batch in batches) == len(records) > 0
    assert batches[0]["position"] == 0
    assert "offsets 0-" in invoke("dump", path).stdout
    assert "key=c-" in invoke("dump", path, "--records").stdout


def test_verify_and_repair(orders: Path, tmp_path: Path, invoke: Invoke) -> None:
    clean = invoke("verify", "--json")
    assert clean.exit_code == 0, clean.output
    assert json.loads(clean.stdout)["records"] == 50
    assert "no problems" in invoke("verify", "orders").stdout
    assert "nothing to repair" in invoke("repair").stdout

    path = segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[80] ^= 1
    path.write_bytes(data)
    damaged = invoke("verify", "--json")
    report = json.loads(damaged.stdout)
    assert (damaged.exit_code, report["ok"]) == (1, False)
    assert any(problem["path"] == str(path) for problem in report["problems"])
    assert invoke("verify").exit_code == 1
    dumped = invoke("dump", path)
    assert dumped.exit_code == 1
    assert path.name in dumped.stderr

    before = path.read_bytes()
    assert json.loads(invoke("repair", "--dry-run", "--json").stdout)["actions"]
    assert path.read_bytes() == before
    invoke("repair")
    assert invoke("verify").exit_code == 0


def test_bench(tmp_path: Path, invoke: Invoke) -> None:
    result = invoke("bench", "--records", 2000, "--json")
    assert result.exit_code == 0, result.output
    assert [entry["records"] for entry in json.loads(result.stdout)["results"]] == [2000] * 5
    assert not list(tmp_path.glob("penstock-bench-*"))
    assert "RECORDS/S" in invoke("bench", "--records", 1000).stdout
