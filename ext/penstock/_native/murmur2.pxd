from libc.stdint cimport int32_t, uint32_t


cdef inline uint32_t murmur2_of(const unsigned char *data, Py_ssize_t length) noexcept nogil:
    """Kafka's 32-bit murmur2 (seed 0x9747b28c)."""
    cdef uint32_t m = 0x5BD1E995
    cdef uint32_t h = <uint32_t>0x9747B28C ^ <uint32_t>length
    cdef uint32_t k
    cdef Py_ssize_t i = 0
    while i + 4 <= length:
        k = data[i] | (<uint32_t>data[i + 1] << 8) | (<uint32_t>data[i + 2] << 16) | (<uint32_t>data[i + 3] << 24)
        k *= m
        k ^= k >> 24
        k *= m
        h *= m
        h ^= k
        i += 4
    if length - i == 3:
        h ^= <uint32_t>data[i + 2] << 16
    if length - i >= 2:
        h ^= <uint32_t>data[i + 1] << 8
    if length - i >= 1:
        h ^= data[i]
        h *= m
    h ^= h >> 13
    h *= m
    h ^= h >> 15
    return h


cdef inline int32_t partition_of(const unsigned char *key, Py_ssize_t length, int32_t partitions) noexcept nogil:
    """The partition of a key, as Kafka's Java client chooses it."""
    return <int32_t>((murmur2_of(key, length) & 0x7FFFFFFF) % <uint32_t>partitions)
