from libc.stdint cimport int32_t, int64_t, uint32_t

from penstock._native.builder cimport BatchBuilder
from penstock._native.lane cimport Lane, TopicLanes, Waiting
from penstock._native.bell cimport Bell
from penstock._native.words cimport WordTable


cdef class Accumulator:
    cdef object __weakref__
    cdef dict _topics
    cdef dict _former
    cdef object _loading  # held while lanes are opened
    cdef TopicLanes _last
    cdef readonly object _broker
    cdef object _clock
    cdef object _partitioner
    cdef Bell _catalog_bell
    cdef uint32_t _generation
    cdef bint _system_clock
    cdef bint _shut
    cdef public bint _linger_awake
    cdef bint _eager
    cdef Py_ssize_t _batch_size
    cdef Py_ssize_t _buffer_memory
    cdef Py_ssize_t _held_bytes
    cdef list _pool
    cdef public object _failure
    cdef public bint _idle  # a transactional producer outside of a transaction
    cdef bint _transactional
    cdef int64_t _producer_id
    cdef public int64_t _epoch
    cdef WordTable _fences
    cdef int64_t _fence
    cdef TopicLanes _lanes_of(self, topic)
    cdef object _load_lanes(self, topic, uint32_t generation)
    cdef int64_t _now_ms(self) except -1
    cdef BatchBuilder _open_batch(self, TopicLanes lanes, Lane lane)
    cdef Lane _with_room(self, TopicLanes lanes, Lane lane, partition)
    cdef int _full(self, TopicLanes lanes, Lane lane) except -1
    cdef int _drain(self, TopicLanes lanes, Lane lane) except -1
    cdef int _seal(self, TopicLanes lanes, Waiting waiting, int32_t sequence) except -1
    cdef int _store_run(self, TopicLanes lanes, Lane lane, const int64_t *fence) except -1
    cdef bint _is_empty(self, TopicLanes lanes) except -1
    cdef Py_ssize_t _send_lists(self, topic, list values, list keys, partition, int64_t timestamp, bint named) except -1
    cdef Py_ssize_t _send_list(self, TopicLanes lanes, list values, partition, int64_t timestamp_ms) except -1
    cdef int _check(self) except -1
