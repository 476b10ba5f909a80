"""`penstock groups`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock

Invoke = Callable[..., Any]


@pytest.fixture
def member(tmp_path: Path) -> Iterator[penstock.Consumer]:
    """A member that read 4 of the 10 records."""
    with penstock.open(tmp_path / "data") as broker:
        topic = broker.create_topic("orders")
        for n in range(10):
            topic.append(b"%d" % n, timestamp_ms=1_000_000 + n * 1000)
        with broker.consumer("orders", group="billing", client_id="me") as consumer:
            consumer.poll(max_records=4, timeout=0)
            consumer.commit()
            yield consumer


@pytest.mark.usefixtures("member")
def test_list_and_describe(invoke: Invoke) -> None:
    assert json.loads(invoke("groups", "list", "--json").stdout) == [
        {"name": "billing", "state": "stable", "members": 1, "lag": 6}
    ]
    assert "billing" in invoke("groups", "list").stdout
    found = json.loads(invoke("groups", "describe", "billing", "--json").stdout)
    assert (found["lag"], found["partitions"][0]["committed"], found["members"][0]["client_id"]) == (6, 4, "me")
    text = invoke("groups", "describe", "billing").stdout
    assert "stable" in text and "orders" in text and "me-" in text


@pytest.mark.usefixtures("member")
@pytest.mark.parametrize(
    ("options", "offset"),
    [
        (["--to", "earliest"], 0), (["--to", "latest"], 10), (["--to", "7"], 7), (["--to", "@1003000"], 3),
        (["--to", "1970-01-01T00:16:45+00:00"], 5), (["--to", "by_duration:PT1H"], 10), (["--shift-by", "-3"], 1),
    ],
)  # fmt: skip
def test_reset(invoke: Invoke, options: list[str], offset: int) -> None:
    arguments = ("groups", "reset", "billing", "--topic", "orders", *options)
    assert json.loads(invoke(*arguments, "--dry-run", "--json").stdout)[0]["offset"] == offset
    assert "nothing was changed" in invoke(*arguments, "--dry-run").stdout
    assert "goes on there" in invoke(*arguments).stdout
    found = json.loads(invoke("groups", "describe", "billing", "--json").stdout)
    assert found["partitions"][0]["committed"] == offset


def test_delete(invoke: Invoke, member: penstock.Consumer) -> None:
    refused = invoke("groups", "delete", "billing")
    assert refused.exit_code == 1 and "1 members" in refused.stderr
    member.close()
    assert "deleted group billing" in invoke("groups", "delete", "billing").stdout
    assert invoke("groups", "list").stdout == "no groups\n"


@pytest.mark.usefixtures("member")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["describe", "nobody"], 1, "'nobody' does not exist"),
        (["delete", "nobody"], 1, "'nobody' does not exist"),
        (["reset", "billing", "--topic", "no", "--to", "latest"], 1, "'no' does not exist"),
        (["reset", "billing", "--topic", "orders"], 2, "--shift-by"),
        (["reset", "billing", "--topic", "orders", "--to", "yesterday"], 2, "yesterday"),
        (["reset", "billing", "--topic", "orders", "--to", "by_duration:1h"], 1, "by_duration:1h"),
    ],
)
def test_bad_input(invoke: Invoke, arguments: list[str], code: int, says: str) -> None:
    result = invoke("groups", *arguments)
    assert result.exit_code == code and says in result.stderr
