"""Exchanges: RabbitMQ's published rules, topic matching against a matcher by brute force, exchange to exchange."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

import penstock
from penstock import (
    InvalidArgumentError,
    InvalidConfigError,
    InvalidTypeError,
    UnknownExchangeError,
    UnknownQueueError,
    UnroutableError,
)
from penstock.queues.topic_trie import TopicTrie


def bodies(queue: penstock.Queue) -> list[bytes]:
    messages = queue.receive(100, wait=0)
    queue.ack_many(messages)
    return [message.value for message in messages]


def matches(pattern: list[str], words: list[str]) -> bool:
    """The rule itself, by brute force."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[skip:]) for skip in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])


def test_the_trie_matches_as_the_rule_says() -> None:
    chance = random.Random(5)
    words = ["a", "b", "c", "*", "#"]
    for _ in range(300):
        patterns = [".".join(chance.choices(words, k=chance.randint(1, 5))) for _ in range(8)]
        trie: TopicTrie[int] = TopicTrie()
        for number, pattern in enumerate(patterns):
            trie.add(pattern, number)
        for _ in range(10):
            key = chance.choices(["a", "b", "c", "*", "#", ""], k=chance.randint(1, 5))
            words_of_key = [] if key == [""] else key  # an empty key has no words
            expected = [number for number, pattern in enumerate(patterns) if matches(pattern.split("."), words_of_key)]
            assert sorted(trie.match(".".join(key))) == expected, (patterns, key)


@pytest.mark.parametrize(
    ("pattern", "key", "hit"),
    [
        ("*.orange.*", "quick.orange.rabbit", True),
        ("*.*.rabbit", "quick.orange.rabbit", True),
        ("lazy.#", "lazy.brown.fox", True),
        ("lazy.#", "lazy", True),
        ("*.orange.*", "orange", False),
        ("*.orange.*", "quick.orange.male.rabbit", False),
        ("#", "", True),
        ("*", "", False),
        ("#.#", "a.b.c", True),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.y.b", True),
    ],
)
def test_the_published_examples_of_topic_exchanges(broker: penstock.Broker, pattern: str, key: str, hit: bool) -> None:
    queue = broker.queue("q")
    exchange = broker.exchange("e", type="topic")
    exchange.bind(queue, pattern)
    assert bool(exchange.publish(b"x", routing_key=key)) == hit
    assert bodies(queue) == [b"x"] * hit


def test_direct_fanout_and_default(broker: penstock.Broker) -> None:
    red, blue = broker.queue("red"), broker.queue("blue")
    direct = broker.exchange("direct", type="direct")
    direct.bind(red, "r")
    direct.bind("blue", "b")
    direct.bind(blue, "r")
    assert len(direct.publish(b"1", "r")) == 2
    assert direct.publish(b"2", "b") == ["blue-0-1"]
    fanout = broker.exchange("fanout", type="fanout")
    fanout.bind(red)
    fanout.bind(red, "again")  # two bindings, one copy
    fanout.bind(blue)
    fanout.publish(b"3")
    broker.exchange("").publish(b"4", "red")
    assert (bodies(red), bodies(blue)) == ([b"1", b"3", b"4"], [b"1", b"2", b"3"])
    with pytest.raises(InvalidArgumentError, match="default exchange"):
        broker.exchange("").bind(red, "x")


@pytest.mark.parametrize(
    ("arguments", "headers", "hit"),
    [
        ({"a": "1", "b": "2"}, {"a": b"1", "b": b"2", "c": b"3"}, True),
        ({"a": "1", "b": "2"}, {"a": b"1"}, False),
        ({"x-match": "all", "a": "1"}, {"a": b"2"}, False),
        ({"x-match": "any", "a": "1", "b": "2"}, {"b": b"2"}, True),
        ({"x-match": "any", "a": "1"}, {}, False),
        ({"x-match": "all", "x-a": "1"}, {}, True),
        ({"x-match": "all-with-x", "x-a": "1"}, {}, False),
        ({"x-match": "all-with-x", "x-a": "1"}, {"x-a": b"1"}, True),
        ({"x-match": "any", "x-a": "1"}, {"x-a": b"1"}, False),
        ({"x-match": "any-with-x", "x-a": "1"}, {"x-a": b"1"}, True),
        ({"a": None}, {"a": b"anything"}, True),
        ({"a": 5}, {"a": b"5"}, True),
    ],
)
def test_headers_exchanges(
    broker: penstock.Broker, arguments: dict[str, object], headers: dict[str, bytes], hit: bool
) -> None:
    queue = broker.queue("q")
    exchange = broker.exchange("e", type="headers")
    exchange.bind(queue, arguments=arguments)
    assert bool(exchange.publish(b"x", headers=headers)) == hit
    assert exchange.publish(b"x", headers={}) == [] or not [name for name in arguments if name[:2] != "x-"]


def test_consistent_hash(broker: penstock.Broker) -> None:
    exchange = broker.exchange("e", type="consistent-hash")
    for number in range(3):
        exchange.bind(broker.queue(f"q{number}"), "2" if number == 0 else "1")
    where = {f"key-{number}": exchange.routes(f"key-{number}") for number in range(4000)}
    assert all(len(found) == 1 for found in where.values())
    share = Counter(found[0][1] for found in where.values())
    assert share["q0"] > 1.3 * share["q1"] and share["q2"] > 400
    exchange.unbind("q2", "1")
    moved = [key for key, found in where.items() if found[0][1] != "q2" and exchange.routes(key) != found]
    assert moved == []  # what was not on the one that went away stays where it was
    with pytest.raises(InvalidArgumentError, match="weight"):
        exchange.bind("q1", "heavy")


def test_exchange_to_exchange_with_a_cycle(broker: penstock.Broker) -> None:
    queue = broker.queue("q")
    first = broker.exchange("first", type="fanout")
    second = broker.exchange("second", type="topic")
    first.bind(second)
    second.bind(first, "#")
    second.bind(queue, "a.*")
    first.bind(queue)
    assert first.publish(b"x", "a.b") == ["q-0-0"]
    assert second.publish(b"y", "a.b") == ["q-0-1"]


def test_alternate_and_mandatory(broker: penstock.Broker) -> None:
    caught = broker.queue("caught")
    other = broker.exchange("unrouted", type="fanout")
    exchange = broker.exchange("e", type="direct", alternate=other)
    with pytest.raises(UnroutableError, match="'k'"):
        exchange.publish(b"lost", "k", mandatory=True)
    assert exchange.publish(b"dropped", "k") == []
    other.bind(caught)
    assert exchange.publish(b"kept", "k", mandatory=True) == ["caught-0-0"]
    assert bodies(caught) == [b"kept"]


def test_a_topic_is_one_copy_for_all_its_share_groups(broker: penstock.Broker) -> None:
    topic = broker.create_topic("log")
    exchange = broker.exchange("e", type="fanout")
    exchange.bind(topic)
    exchange.publish(b"x", "any.key", headers=[("h", b"v")])
    with broker.share_consumer("log", group="a") as a, broker.share_consumer("log", group="b") as b:
        (one,), (two,) = a.receive(wait=0), b.receive(wait=0)
        assert one.offset == two.offset == 0 and ("h", b"v") in one.headers
        assert dict(one.headers)["x-routing-key"] == b"any.key"


def test_definitions_are_durable_and_shared(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as one, penstock.open(tmp_path / "data") as two:
        exchange = one.exchange("e", type="topic")
        one.queue("q")
        there = two.exchange("e")
        assert there.type == "topic" and there.publish(b"early", "a") == []
        exchange.bind("q", "a", arguments={"note": "x"})
        assert len(there.publish(b"x", "a")) == 1
        assert exchange.unbind("q", "a", arguments={"note": "x"})
        assert not exchange.unbind("q", "a")
        assert there.publish(b"late", "a") == []
        exchange.bind("q", "b")
    with penstock.open(tmp_path / "data") as again:
        assert again.exchanges() == {"e": "topic"}
        assert [(binding.target, binding.routing_key) for binding in again.exchange("e").bindings()] == [("q", "b")]
        again.delete_queue("q")
        assert again.exchange("e").bindings() == []
        again.exchange("e").delete()
        with pytest.raises(UnknownExchangeError):
            again.exchange("e")


def test_options_reach_the_queue(broker: penstock.Broker) -> None:
    queue = broker.queue("q", max_priority=5)
    exchange = broker.exchange("e", type="fanout")
    exchange.bind(queue)
    exchange.publish(b"low")
    exchange.publish(b"high", priority=5)
    exchange.publish(b"later", delay=100.0)
    assert bodies(queue) == [b"high", b"low"]
    assert queue.stats().delayed == 1
    assert exchange.publish_many([(b"a", ""), (b"b", "")]) == 2


def test_bad_arguments_are_refused(broker: penstock.Broker) -> None:
    with pytest.raises(UnknownExchangeError, match="give a type"):
        broker.exchange("e")
    with pytest.raises(InvalidConfigError, match="direct"):
        broker.exchange("e", type="round-robin")
    exchange = broker.exchange("e", type="headers")
    with pytest.raises(InvalidConfigError, match="headers"):
        broker.exchange("e", type="topic")
    with pytest.raises(UnknownQueueError):
        exchange.bind("no such queue".replace(" ", "-"))
    broker.queue("q")
    with pytest.raises(InvalidArgumentError, match="x-match"):
        exchange.bind("q", arguments={"x-match": "some"})
    with pytest.raises(InvalidTypeError):
        exchange.bind("q", arguments=["a"])  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError):
        exchange.bind(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError):
        exchange.publish(b"x", routing_key=b"bytes")  # type: ignore[arg-type]
