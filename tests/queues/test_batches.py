"""SQS's batch calls: their limits, and a result for each entry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import InvalidArgumentError, InvalidTypeError, StaleReceiptError


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[penstock.Queue]:
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        yield broker.queue("q")


HALF = b"x" * (1 << 19)
WHOLE: list[tuple[Any, type[Exception], str]] = [
    ([], InvalidArgumentError, "entries has 0 items"),
    ([{"value": b"x"}] * 11, InvalidArgumentError, "entries has 11 items"),
    ([{"id": "a", "value": b"x"}] * 2, InvalidArgumentError, "must differ"),
    ([{"id": "", "value": b"x"}], InvalidArgumentError, "id is ''"),
    ([{"id": "a.b", "value": b"x"}], InvalidArgumentError, "id is 'a.b'"),
    ([{"id": "x" * 81, "value": b"x"}], InvalidArgumentError, "1 to 80"),
    ([{"id": 5, "value": b"x"}], InvalidArgumentError, "id is 5"),
    ([{"value": HALF}, {"value": HALF}, {"value": b"x"}], InvalidArgumentError, "1048577 bytes"),
    ([{"value": HALF}, {"value": HALF, "headers": [("h", b"v")]}], InvalidArgumentError, "1048578 bytes"),
    ("abc", InvalidTypeError, "entries is str"),
    (5, InvalidTypeError, "entries is int"),
    ([5], InvalidTypeError, r"entries\[0\] is 5"),
    ([{5: b"x"}], InvalidTypeError, r"entries\[0\]"),
]


@pytest.mark.parametrize("entries, kind, words", WHOLE)
def test_a_batch_that_is_refused_stores_nothing(
    queue: penstock.Queue, entries: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        queue.send_batch(entries)
    assert queue.stats().sent == 0


ENTRIES: list[tuple[dict[str, Any], str]] = [
    ({"value": "text"}, "value is str"),
    ({"value": None}, "value is None"),
    ({}, "missing"),
    ({"value": b"x", "delay": 901}, "allowed are 0 to 900"),
    ({"value": b"x", "delay": -1}, "delay is -1"),
    ({"value": b"x", "headers": [(f"h{n}", b"") for n in range(11)]}, "headers has 11 items"),
    ({"value": b"x", "headers": 7}, "headers is 7"),
    ({"value": b"x", "colour": "red"}, "colour"),
    ({"value": b"x", "priority": 1}, "priority is 1"),
]


@pytest.mark.parametrize("entry, words", ENTRIES)
def test_an_entry_that_is_refused_leaves_the_others(queue: penstock.Queue, entry: dict[str, Any], words: str) -> None:
    first, failed, last = queue.send_batch([{"value": b"1", "delay": 900}, {"id": "bad", **entry}, {"value": b"3"}])
    assert (first.ok, failed.ok, last.ok) == (True, False, True)
    assert (failed.id, failed.message_id) == ("bad", None)
    assert isinstance(failed.error, penstock.PenstockError) and words in str(failed.error)
    assert queue.stats().sent == 2


def test_ten_headers_are_allowed(queue: penstock.Queue) -> None:
    (result,) = queue.send_batch([{"value": b"x", "headers": {f"h{n}": b"v" for n in range(10)}}])
    assert result.ok and len(queue.receive(wait=0)[0].headers) == 10


def test_delete_and_change_visibility(queue: penstock.Queue) -> None:
    queue.send_many([b"a", b"b"])
    first, second = queue.receive(wait=0)
    changed = queue.change_visibility_batch(
        [(first.receipt_handle, 43_200), (second.receipt_handle, 43_201), ("0.99.1", 5), (7, 5)]
    )
    assert [one.ok for one in changed] == [True, False, False, False]
    assert isinstance(changed[2].error, StaleReceiptError) and isinstance(changed[3].error, InvalidTypeError)
    deleted = queue.delete_batch([first.receipt_handle, "nonsense"])
    assert [(one.id, one.ok) for one in deleted] == [("0", True), ("1", False)]
    for given in ([first.receipt_handle] * 2, [], ["a"] * 11):
        with pytest.raises(InvalidArgumentError):
            queue.delete_batch(given)
    for given in ("handle", 5):
        with pytest.raises(InvalidTypeError, match="receipt_handles"):
            queue.delete_batch(given)
    with pytest.raises(InvalidTypeError, match=r"entries\[0\]"):
        queue.change_visibility_batch([first.receipt_handle])


def test_a_receive_attempt_has_sqs_s_limits(queue: penstock.Queue) -> None:
    for options, words in (
        ({"max_messages": 11}, "max_messages is 11"),
        ({"max_messages": 0}, "max_messages is 0"),
        ({"wait": 21}, "wait is 21"),
        ({"wait": -1}, "wait is -1"),
        ({"visibility_timeout": 43_201}, "visibility_timeout is 43201"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            queue.receive_attempt("a", **options)
    with pytest.raises(InvalidArgumentError, match="attempt_id"):
        queue.receive_attempt("")


def test_redrive_policies_are_among_the_attributes(queue: penstock.Queue) -> None:
    broker = queue._broker
    broker.queue("dead", redrive_allow_policy=["q"])
    broker.queue("q", dead_letter="dead", max_receives=3)
    assert queue.attributes()["RedrivePolicy"] == '{"deadLetterTargetArn": "dead", "maxReceiveCount": 3}'
    assert '"byQueue"' in broker.queue("dead").attributes()["RedriveAllowPolicy"]
