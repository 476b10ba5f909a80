"""`penstock transactions`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import penstock

Invoke = Callable[..., Any]


def test_list_and_abort(invoke: Invoke, tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        broker.create_topic("out")
        assert invoke("transactions", "list").stdout == "no transactional producers\n"
        producer = broker.producer(transactional_id="billing")
        producer.begin_transaction()
        producer.send("out", b"v")
        producer.flush()
        (found,) = json.loads(invoke("transactions", "list", "--json").stdout)
        assert (found["transactional_id"], found["state"], found["epoch"]) == ("billing", "ongoing", 1)
        assert "out-0" in invoke("transactions", "list").stdout
        assert "is over" in invoke("transactions", "abort", "billing").stdout
        assert "no transaction of billing is open" in invoke("transactions", "abort", "billing").stdout
        refused = invoke("transactions", "abort", "nobody")
        assert refused.exit_code == 1 and "'nobody'" in refused.stderr
        producer.close()
        with broker.consumer("out", isolation_level="read_committed") as consumer:
            assert consumer.poll(timeout=0) == []
