"""A key goes to the partition to which Kafka's clients send it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as their_murmur2

from penstock._native.murmur2 import murmur2, partition_for_key
from penstock.errors import InvalidArgumentError

JAVA = {  # from the tests of Kafka's Java client
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", JAVA)
def test_hashes_of_the_java_client(key):
    assert murmur2(key) == JAVA[key]


@settings(deadline=None)
@given(key=st.binary(max_size=40), partitions=st.integers(1, 2000))
def test_partition_of_kafka_python(key, partitions):
    assert partition_for_key(key, partitions) == (their_murmur2(key) & 0x7FFFFFFF) % partitions


def test_no_partitions():
    with pytest.raises(InvalidArgumentError, match="partitions is 0"):
        partition_for_key(b"key", 0)
