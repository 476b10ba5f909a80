"""Kafka's key hash: the same key goes to the same partition as with the Java client. Thread safety: any; pure."""

from libc.stdint cimport int32_t

from penstock.errors import InvalidArgumentError


def murmur2(bytes key not None):
    """The signed 32-bit hash of a key."""
    return <int32_t>murmur2_of(<const unsigned char *><char *>key, len(key))


def partition_for_key(bytes key not None, int32_t partitions):
    """The partition (0 to `partitions` - 1) of a key."""
    if partitions < 1:
        raise InvalidArgumentError(f"partitions is {partitions}; allowed is 1 or more")
    return partition_of(<const unsigned char *><char *>key, len(key), partitions)
