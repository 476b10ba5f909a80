"""A segment as readers see it: where in its log to look for an offset or a time, by its indexes.

Invariants: an index entry counts only once it is published, which the callers know (`entries`); what lies behind may be half
written. An index says where to start, never what is there: the batches found are looked at themselves.

Thread and process safety: read only; any number of threads. Crash policy: nothing is written; recovery has made the indexes
whole before anybody reads them.
"""

from libc.stdint cimport int64_t

from penstock._native.format cimport INDEX_ENTRY_BYTES, TIME_INDEX_ENTRY_BYTES, load_be32, load_be64
from penstock._native.mapping cimport Mapping


cdef int64_t _entries_upto(const char *entries, int64_t count, int width, int64_t key) noexcept nogil:
    """How many entries have a key that is at most `key`."""
    cdef int64_t low = 0, high = count, middle, value
    while low < high:
        middle = (low + high) // 2
        if width == INDEX_ENTRY_BYTES:
            value = <int64_t>load_be32(entries + middle * width)
        else:
            value = <int64_t>load_be64(entries + middle * width)
        if value <= key:
            low = middle + 1
        else:
            high = middle
    return low


cdef class ReadSegment:
    """A segment as readers see it: its log, and once something is looked up in them its indexes, mapped for reading."""

    def __init__(self, Mapping log not None, int64_t base_offset):
        self.log = log
        self.base_offset = base_offset
        self.sealed_size = -1

    def set_indexes(self, Mapping index, Mapping time_index):
        """Look up in these; None: batches are looked through instead."""
        self.index = index
        self.time_index = time_index
        self.indexed = True

    def first_position(self, int64_t offset, int64_t entries):
        """Where to start looking for the batch that holds `offset`: the position of an earlier batch, from the index."""
        cdef int64_t found
        if self.index is None:
            return 0
        entries = min(entries, self.index.length // INDEX_ENTRY_BYTES)
        found = _entries_upto(self.index.data, entries, INDEX_ENTRY_BYTES, offset - self.base_offset)
        return 0 if found == 0 else <int64_t>load_be32(self.index.data + found * INDEX_ENTRY_BYTES - 4)

    def time_floor(self, int64_t timestamp_ms, int64_t entries, int64_t index_entries):
        """An offset at or before the first record whose timestamp is >= `timestamp_ms`, from both indexes.

        The first entry of the time index that is late enough was added with an entry of the offset index; at the one
        before that the timestamps were still earlier, or it would have been added there. So the record is not before
        that one (one more: Kafka's own files count the batch of the entry in, ours do not).
        """
        cdef int64_t found, latest, place
        cdef const char *data
        if self.time_index is None:
            return self.base_offset
        entries = min(entries, self.time_index.length // TIME_INDEX_ENTRY_BYTES)
        data = self.time_index.data
        found = _entries_upto(data, entries, TIME_INDEX_ENTRY_BYTES, timestamp_ms - 1)
        latest = 0 if found == 0 else <int64_t>load_be32(data + found * TIME_INDEX_ENTRY_BYTES - 4)
        if self.index is not None:
            index_entries = min(index_entries, self.index.length // INDEX_ENTRY_BYTES)
            place = index_entries
            if found < entries:
                place = _entries_upto(
                    self.index.data, index_entries, INDEX_ENTRY_BYTES, load_be32(data + (found + 1) * TIME_INDEX_ENTRY_BYTES - 4)
                )
            if place > 1:
                latest = max(latest, <int64_t>load_be32(self.index.data + (place - 2) * INDEX_ENTRY_BYTES))
        return self.base_offset + latest

    def last_timestamp_ms(self, int64_t entries):
        """The largest timestamp the time index knows, or None."""
        if self.time_index is None or entries <= 0 or entries * TIME_INDEX_ENTRY_BYTES > self.time_index.length:
            return None
        return <int64_t>load_be64(self.time_index.data + (entries - 1) * TIME_INDEX_ENTRY_BYTES)
