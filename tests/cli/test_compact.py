"""`penstock compact`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import penstock


def test_compact(invoke: Callable[..., Any], tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        topic = broker.create_topic("prices", cleanup_policy="compact", partitions=2)
        for n in range(10):
            topic.append(b"%d" % n, key=b"k", partition=1)
        broker.create_topic("plain")
    (done,) = json.loads(invoke("compact", "prices", "--json").stdout)
    assert (done["partition"], done["records_kept"], done["records_removed"]) == (1, 1, 9)
    assert invoke("compact", "prices").stdout == "nothing to compact\n"
    refused = invoke("compact", "plain")
    assert refused.exit_code == 1 and "cleanup_policy" in refused.stderr
