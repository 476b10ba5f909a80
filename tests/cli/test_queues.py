"""`penstock queues` and `penstock exchanges`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import penstock

Invoke = Callable[..., Any]


def ok(result: Any) -> str:
    assert result.exit_code == 0, result.output
    text: str = result.stdout
    return text


def test_a_queue_from_the_command_line(invoke: Invoke) -> None:
    ok(invoke("queues", "create", "q", "-o", "visibility_timeout=60", "-o", "max_priority=3", "-o", "retention=none"))
    assert ok(invoke("queues", "send", "q", "low")) == "q-3-0\n"
    ok(invoke("queues", "send", "q", "high", "--priority", "3"))
    assert ok(invoke("queues", "send", "q", input="one\ntwo\n")) == "sent 2 messages\n"
    ok(invoke("queues", "send", "q", "later", "--delay", "1000"))
    assert ok(invoke("queues", "receive", "q")) == "high\n"
    (message,) = json.loads(ok(invoke("queues", "receive", "q", "--keep", "--json")))
    assert (message["body"], message["priority"], message["delivery_count"]) == ("low", 0, 1)
    assert ok(invoke("queues", "peek", "q", "--contains", "tw")) == "two\n"
    assert ok(invoke("queues", "peek", "q", "--state", "delayed")) == "later\n"
    (stats,) = json.loads(ok(invoke("queues", "list", "--json")))
    assert (stats["ready"], stats["in_flight"], stats["delayed"], stats["acknowledged"]) == (2, 1, 1, 1)
    assert "visibility_timeout" in ok(invoke("queues", "stats", "q"))
    assert ok(invoke("queues", "purge", "q")) == "dropped 3 messages\n"
    ok(invoke("queues", "delete", "q"))
    assert ok(invoke("queues", "list")) == "no queues\n"


def test_redrive(invoke: Invoke, tmp_path: Any) -> None:
    with penstock.open(tmp_path / "data") as broker:
        queue = broker.queue("q")
        queue.send_many([b"a", b"b"])
        for message in queue.receive(wait=0):
            message.reject()
    assert ok(invoke("queues", "redrive", "q", "--contains", "a", "--dry-run")).startswith("would move 1")
    assert json.loads(ok(invoke("queues", "redrive", "q", "--contains", "a", "--json")))["moved"] == 1
    assert ok(invoke("queues", "peek", "q", "--state", "dead")) == "b\n"
    assert ok(invoke("queues", "purge", "q", "--dead")) == "dropped 1 messages\n"


def test_exchanges_from_the_command_line(invoke: Invoke) -> None:
    ok(invoke("queues", "create", "q"))
    ok(invoke("exchanges", "create", "e", "--type", "headers"))
    ok(invoke("exchanges", "create", "f", "--type", "fanout", "--alternate", "e"))
    ok(invoke("exchanges", "bind", "e", "q", "-a", "x-match=any", "-a", "kind=order"))
    ok(invoke("exchanges", "bind", "f", "e", "--exchange"))
    assert ok(invoke("exchanges", "publish", "e", "body", "--header", "kind=order")) == "q-0-0\n"
    assert "dropped" in ok(invoke("exchanges", "publish", "e", "body", "--header", "kind=other"))
    assert "kind=order" in ok(invoke("exchanges", "list"))
    found = {one["name"]: one for one in json.loads(ok(invoke("exchanges", "list", "--json")))}
    assert found["f"]["bindings"][0]["target"] == "e"
    ok(invoke("exchanges", "bind", "f", "e", "--exchange", "--remove"))
    refused = invoke("exchanges", "bind", "f", "e", "--exchange", "--remove")
    assert refused.exit_code == 1 and "no such binding" in refused.stderr
    refused = invoke("exchanges", "publish", "e", "x", "--mandatory")
    assert refused.exit_code == 1 and "no binding" in refused.stderr
    ok(invoke("exchanges", "delete", "e"))
    assert ok(invoke("queues", "receive", "q")) == "body\n"


def test_bad_input_is_one_line(invoke: Invoke) -> None:
    ok(invoke("queues", "create", "q"))
    for arguments in (
        ("queues", "send", "nothing", "x"),
        ("queues", "create", "q", "-o", "visibility_timeout=abc"),
        ("queues", "create", "q", "-o", "no_option=1"),
        ("queues", "peek", "q", "--state", "lost"),
        ("exchanges", "create", "e", "--type", "star"),
        ("exchanges", "publish", "e", "x"),
    ):
        refused = invoke(*arguments)
        assert refused.exit_code == 1 and refused.stderr.count("\n") == 1, arguments
    assert invoke("queues", "create", "q", "-o", "nonsense").exit_code == 2


def test_headers_rates_and_policies(invoke: Invoke) -> None:
    ok(invoke("queues", "create", "dead", "-o", "redrive_allow_policy=q,r"))
    ok(invoke("queues", "create", "q", "-o", "dead_letter=dead"))
    ok(invoke("queues", "send", "q", "x", "--header", "to=ada", "--ttl", "60"))
    (message,) = json.loads(ok(invoke("queues", "peek", "q", "--json")))
    assert message["headers"] == [["to", "ada"]]
    assert "SENT/S" in ok(invoke("queues", "stats", "q", "--rates", "0.01"))
    found = json.loads(ok(invoke("queues", "stats", "dead", "--json")))
    assert found["config"]["redrive_allow_policy"] == ["q", "r"]


BAD = [
    (["queues", "create", "q", "-o", "colour=red"], 1, "unknown queue option 'colour'"),
    (["queues", "create", "q", "-o", "visibility_timeout"], 2, "is not NAME=VALUE"),
    (["queues", "create", "q", "-o", "visibility_timeout=soon"], 1, "visibility_timeout is 'soon'"),
    (["queues", "create", "../q"], 1, "'../q' is not allowed"),
    (["queues", "create", "topic"], 1, "topic 'topic' exists and is not a queue"),
    (["queues", "create", "s", "-o", "dead_letter=closed"], 1, "denyAll"),
    (["queues", "stats", "missing"], 1, "queue 'missing' does not exist"),
    (["queues", "send", "missing", "x"], 1, "queue 'missing' does not exist"),
    (["queues", "send", "here", "x", "--priority", "1"], 1, "priority is 1"),
    (["queues", "send", "here", "x", "--delay", "-1"], 2, "--delay"),
    (["queues", "send", "here", "x", "--header", "to"], 2, "is not NAME=VALUE"),
    (["queues", "receive", "here", "--max", "0"], 2, "--max"),
    (["queues", "peek", "here", "--state", "asleep"], 1, "state is 'asleep'"),
    (["queues", "redrive", "here", "--to", "missing"], 1, "queue 'missing' does not exist"),
    (["queues", "redrive", "here", "--rate", "0"], 1, "rate is 0"),
    (["queues", "delete", "missing"], 1, "queue 'missing' does not exist"),
    (["queues", "list", "--data", "nowhere"], 1, "there is no data directory"),
    (["exchanges", "create", "e", "--type", "round"], 1, "type is 'round'"),
    (["exchanges", "bind", "missing", "here"], 1, "exchange 'missing' does not exist"),
    (["exchanges", "bind", "x", "missing"], 1, "queue 'missing' does not exist"),
    (["exchanges", "bind", "x", "here", "--remove"], 1, "has no such binding"),
    (["exchanges", "bind", "h", "here", "-a", "x-match=some"], 1, "x-match"),
    (["exchanges", "publish", "missing", "body"], 1, "exchange 'missing' does not exist"),
    (["exchanges", "publish", "x", "body", "--mandatory"], 1, "has no binding"),
    (["exchanges", "publish", "x"], 2, "BODY"),
    (["exchanges", "delete", "missing"], 1, "exchange 'missing' does not exist"),
]


@pytest.mark.parametrize("command, code, words", BAD)
def test_bad_input_is_one_line_that_says_what_is_wrong(
    invoke: Invoke, tmp_path: Any, command: list[str], code: int, words: str
) -> None:
    with penstock.open(tmp_path / "data") as broker:
        broker.create_topic("topic")
        broker.queue("here")
        broker.queue("closed", redrive_allow_policy="denyAll")
        broker.exchange("x", type="direct")
        broker.exchange("h", type="headers")
    result = invoke(*command)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.output.replace("│", " ").split()) and "Traceback" not in result.output
