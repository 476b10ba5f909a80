"""Reading received messages from the log, by their offsets; ascending is fastest.

A batch is fetched and checked once while offsets ascend in it; each message is made straight from the bytes of its record,
and records that others received are passed over by their sizes. Thread safety: one thread at a time.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t

from penstock._native.control cimport PENSTOCK_FLAG_TRANSACTIONS, control_slot, control_snapshot
from penstock._native.delivery_states cimport DeliveryStates
from penstock._native.format cimport VARINT_MAX_BYTES, record_fields, record_read, varint_read
from penstock._native.log_region cimport LogRegion
from penstock._native.message cimport Message
from penstock._native.partition cimport Partition
from penstock._native.records cimport RecordCursor

from penstock.errors import OffsetOutOfRangeError

cdef enum:
    FETCH_BYTES = 1 << 18


cdef class MessageReader(RecordCursor):
    """`MessageReader(log, decompressed_limit_bytes)`: makes messages of the records of a partition."""

    def __init__(self, Partition log not None, Py_ssize_t decompressed_limit_bytes):
        RecordCursor.__init__(self, log.topic, log.number)
        self.log = log
        self.decompressed_limit_bytes = decompressed_limit_bytes

    cdef void forget(self) noexcept:
        """Begin anew: what was fetched may be another process's by now."""
        self.sound = False
        self.region = None

    cdef Message read(self, queue, DeliveryStates delivery, int64_t offset):
        """The message at an offset; None when there is no record (any more)."""
        cdef record_fields fields
        cdef Message message
        if not self.sound or offset < self.next_offset or offset >= self.region.next_offset:
            if not self._fetch(offset):
                return None
        self.sound = False  # until it went well
        if not self._reach(offset, &fields):
            self.next_offset = offset + 1
            self.sound = True
            return None
        message = Message.__new__(Message)
        message.queue = queue
        message.delivery = delivery
        message.offset = offset
        message.timestamp_ms = self.walker.base_timestamp + fields.timestamp_delta
        if self.walker.log_append_time:
            message.timestamp_ms = self.walker.max_timestamp
        if fields.key_length >= 0:
            message.key = PyBytes_FromStringAndSize(fields.key, fields.key_length)
        if fields.value_length >= 0:
            message.value = PyBytes_FromStringAndSize(fields.value, fields.value_length)
        if fields.header_count:
            message.pairs = self._headers(&fields)
        self.next_byte = fields.end
        self.left -= 1
        self.next_offset = offset + 1
        self.sound = True
        return message

    cdef int _fetch(self, int64_t offset) except -1:
        """Go on with the batches from this offset on; 0 when there are none."""
        cdef LogRegion region
        cdef control_slot slot
        cdef int64_t end
        control_snapshot(self.log.control, &slot)
        end = slot.log_end_offset
        if self.log.control.flags & PENSTOCK_FLAG_TRANSACTIONS:
            end = (<object>self.log).last_stable_offset  # what is behind may be aborted while the region is kept
        try:
            region = self.log.fetch(offset, FETCH_BYTES, self.region if self.sound else None, end)
        except OffsetOutOfRangeError:
            self.sound = False
            return 0  # retention was faster
        self.sound = False
        if region is None:
            return 0
        if self.log.control.flags & PENSTOCK_FLAG_TRANSACTIONS:
            self.aborted = (<object>self.log).aborted_in(offset, region.next_offset)
        self.feed(region, offset)
        self.region = region
        return 1

    cdef int _reach(self, int64_t offset, record_fields *fields) except -1:
        """Parse the record at this offset, which is not passed yet; 0 when there is none."""
        cdef const char *after
        cdef int64_t found
        self.from_offset = offset
        while True:
            if self.left == 0 and not self._open_batch():
                return 0
            after = record_read(self.next_byte, self.walker.payload_end, fields)
            if after == NULL or fields.offset_delta < 0 or fields.offset_delta > self.walker.last_offset_delta:
                raise self._broken(self.walker.count - self.left)
            if self.left == 1 and after != self.walker.payload_end:
                raise self._broken(self.walker.count)
            found = self.walker.base_offset + fields.offset_delta
            if found >= offset:
                return found == offset
            self.next_byte = after
            self.left -= 1
            if self.left and self.walker.count == self.walker.last_offset_delta + 1:
                self._pass_over(offset)

    cdef int _pass_over(self, int64_t offset) except -1:
        """Go to the record at this offset, or to the last one of the batch; none is missing in it."""
        cdef const char *p = self.next_byte
        cdef const char *end = self.walker.payload_end
        cdef int64_t size, ahead = min(offset - self.walker.base_offset - (self.walker.count - self.left), self.left - 1)
        while ahead > 0:
            p = varint_read(p, end, VARINT_MAX_BYTES, &size)
            if p == NULL or size < 1 or size > end - p:
                raise self._broken(self.walker.count - self.left)
            p += size
            self.left -= 1
            ahead -= 1
        self.next_byte = p
        return 0
