"""`penstock queues` and `penstock exchanges`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

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
    import penstock

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
