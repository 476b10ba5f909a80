"""Topics: creating, altering, deleting them and their records, and retention."""

from __future__ import annotations

import pytest

import penstock

T0 = penstock.TopicPartition("t", 0)
BIG = b"v" * 400_000  # two fit a segment of 1 MiB
DAY_S = 86_400


@pytest.fixture
def clock():
    return penstock.VirtualClock()


@pytest.fixture
def broker(tmp_path, clock, request):
    with penstock.open(tmp_path / "data", clock=clock) as opened:
        yield opened
    request.node.funcargs.clear()  # pytest would keep the broker longer than `nothing_left_mapped` allows
    del opened


def test_create_describe_delete(broker):
    topic = broker.create_topic("b.topic_1-x", partitions=3, retention_ms=5000)
    broker.create_topic("a")
    assert broker.topics() == ["a", "b.topic_1-x"]
    topic.append(b"v", partition=2)
    described = topic.describe()
    assert (described.name, described.config["retention_ms"], len(described.partitions)) == ("b.topic_1-x", 5000, 3)
    assert [p.log_end_offset for p in described.partitions] == [0, 0, 1]
    assert described.partitions[2].size_bytes > 61
    assert described.partitions[2].segments == 1
    with pytest.raises(penstock.TopicExistsError):
        broker.create_topic("a")
    broker.delete_topic("b.topic_1-x")
    assert broker.topics() == ["a"]
    for call in (topic.describe, lambda: topic.append(b"v"), lambda: broker.topic("b.topic_1-x")):
        with pytest.raises(penstock.UnknownTopicError):
            call()
    assert not list(broker.path.glob("b.topic*"))
    again = broker.create_topic("b.topic_1-x")
    assert again.append(b"new").offset == 0
    assert topic.append(b"the old handle works again").offset == 1


def test_alter(broker, read):
    topic = broker.create_topic("t", partitions=2)
    topic.append(b"v", partition=1)
    assert broker.alter_topic("t", segment_bytes=1 << 20, partitions=4).partitions == 4
    assert topic.partitions == 4
    assert topic.append(b"w", partition=3).offset == 0
    for _ in range(4):
        topic.append(BIG, partition=1)
    assert len(topic.log(1).segments()) > 1
    assert len(read(broker, "t", 1)) == 5
    with pytest.raises(penstock.InvalidConfigError, match="none can be removed"):
        broker.alter_topic("t", partitions=3)
    with pytest.raises(penstock.UnknownTopicError):
        broker.alter_topic("u", retention_ms=5)
    with pytest.raises(penstock.UnknownTopicError):
        topic.append(b"v", partition=4)


def test_configuration_survives(tmp_path):
    with penstock.open(tmp_path) as broker:
        config = broker.create_topic("t", partitions=2, max_message_bytes=77, compression_type="lz4").config
    with penstock.open(tmp_path) as broker:
        assert broker.topic("t").config == config
        with pytest.raises(penstock.RecordTooLargeError):
            broker.topic("t").append(b"v" * 78)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * 250, "a\n", "a\0", None, 5, b"a"])
def test_bad_names(broker, name):
    for call in (broker.create_topic, broker.topic, broker.delete_topic, broker.alter_topic):
        with pytest.raises(penstock.InvalidNameError):
            call(name)
    assert broker.topics() == []


def test_longest_name(broker):
    assert broker.create_topic("x" * 249).append(b"v").offset == 0


@pytest.mark.parametrize("config", [
    {"partitions": 0}, {"partitions": 10_001}, {"partitions": True}, {"partitions": "1"}, {"retention_ms": -2},
    {"retention_bytes": 2**63}, {"segment_bytes": 1 << 19}, {"segment_bytes": 2**31}, {"segment_ms": 0},
    {"max_message_bytes": 0}, {"max_message_bytes": (1 << 30) + 1}, {"cleanup_policy": "shred"},
    {"compression_type": "rar"}, {"compression_type": 1}, {"message_timestamp_type": "create"}, {"nonsense": 1},
])  # fmt: skip
def test_bad_configs(broker, config):
    with pytest.raises(penstock.InvalidConfigError, match=next(iter(config))):
        broker.create_topic("t", **config)
    assert broker.topics() == []
    broker.create_topic("t")
    with pytest.raises(penstock.InvalidConfigError):
        broker.alter_topic("t", **config)


def test_delete_records(broker, read):
    topic = broker.create_topic("t", segment_bytes=1 << 20)
    for _ in range(7):
        topic.append(BIG)
    assert broker.delete_records(T0, 3) == 3
    assert [offset for offset, _ in read(broker)] == [3, 4, 5, 6]
    assert topic.log(0).segments() == [2, 4, 6]
    assert broker.delete_records(T0, 1) == 3
    with pytest.raises(penstock.OffsetOutOfRangeError):
        topic.log(0).fetch(2, 1000)
    for bad in (-1, 8):
        with pytest.raises(penstock.OffsetOutOfRangeError):
            broker.delete_records(T0, bad)
    for bad in (True, "1", None):
        with pytest.raises(penstock.InvalidTypeError):
            broker.delete_records(T0, bad)
    assert broker.delete_records(T0, 7) == 7
    assert read(broker) == []
    assert topic.append(b"next").offset == 7


def test_delete_records_survives(tmp_path, read_directory):
    with penstock.open(tmp_path) as broker:
        topic = broker.create_topic("t")
        for _ in range(5):
            topic.append(b"v")
        broker.delete_records(T0, 2)
    assert [offset for offset, _ in read_directory(tmp_path)] == [2, 3, 4]


def test_retention_by_bytes(broker, read):
    topic = broker.create_topic("t", segment_bytes=1 << 20, retention_bytes=2_000_000)
    for _ in range(21):
        topic.append(BIG)
    assert broker.maintain()
    log = topic.log(0)
    assert 2_000_000 <= log.size_bytes() < 2_000_000 + (1 << 20)
    assert [offset for offset, _ in read(broker)] == list(range(log.log_start_offset, 21))
    broker.alter_topic("t", retention_bytes=0)
    broker.maintain()
    assert len(log.segments()) == 1


def test_retention_by_time(broker, clock, read):
    topic = broker.create_topic("t", segment_bytes=1 << 20, retention_ms=DAY_S * 1000)
    for _ in range(5):
        topic.append(BIG)
        clock.advance(DAY_S / 4)
    broker.maintain()  # offsets 0 to 4 were written 5/4 to 1/4 days ago; segment 0-1 keeps 1, which is just 1 day old
    assert topic.log(0).log_start_offset == 0
    clock.advance(DAY_S / 4)
    broker.maintain()
    assert topic.log(0).log_start_offset == 2
    clock.advance(DAY_S * 9)
    broker.maintain()
    assert topic.log(0).log_start_offset == topic.log(0).log_end_offset == 5
    assert read(broker) == []
    assert topic.append(b"next").offset == 5


def test_retention_keeps_what_has_no_policy(broker, clock):
    topic = broker.create_topic("t", cleanup_policy="", retention_ms=1, retention_bytes=0, segment_bytes=1 << 20)
    unlimited = broker.create_topic("u", retention_ms=-1)
    for _ in range(5):
        topic.append(BIG)
    unlimited.append(b"v")
    clock.advance(DAY_S * 4000)
    broker.maintain()
    assert topic.log(0).log_start_offset == unlimited.log(0).log_start_offset == 0


def test_one_process_maintains(tmp_path):
    with penstock.open(tmp_path) as one, penstock.open(tmp_path) as two:
        assert one.maintain()
        assert not two.maintain()
        one.close()
        assert two.maintain()


def test_closed(broker):
    broker.create_topic("t")
    broker.close()
    broker.close()
    for call in (broker.topics, broker.maintain, broker.producer, lambda: broker.topic("t"),
                 lambda: broker.create_topic("u"), lambda: broker.delete_topic("t")):  # fmt: skip
        with pytest.raises(penstock.ClosedError):
            call()


def test_a_closed_broker_leaves_its_clock(tmp_path, clock):
    for _ in range(3):
        penstock.open(tmp_path, clock=clock).close()
    assert clock._listeners == []
    clock.advance(1)


def test_a_topic_whose_maker_died_before_it_told(tmp_path, monkeypatch):
    """As when it is about to tell: what cannot be made because it exists is there."""
    with penstock.open(tmp_path) as maker, penstock.open(tmp_path) as other:
        assert other.topics() == []
        create = maker._catalog.create

        def create_and_die(*arguments):
            create(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(maker._catalog, "create", create_and_die)
        with pytest.raises(KeyboardInterrupt):
            maker.create_topic("t")
        with pytest.raises(penstock.TopicExistsError):
            other.create_topic("t")
        assert other.topic("t").append(b"v").offset == 0
