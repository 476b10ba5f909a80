from libc.stdint cimport int64_t

from penstock._native.control cimport lock_handle
from penstock._native.mapping cimport Mapping


cdef class WordTable:
    cdef readonly Mapping map
    cdef readonly bint written
    cdef int64_t reserved, words_max, step_bytes
    cdef int64_t *at(self, int64_t number) noexcept
    cdef bint holds(self, int64_t number) noexcept
    cdef int64_t load(self, int64_t number) noexcept


cdef class SharedMutex:
    cdef WordTable words
    cdef lock_handle handle


cdef class OpenTransactions(WordTable):
    cdef int64_t used(self) noexcept
    cpdef int begin(self, int64_t producer_id, int64_t first_offset) except -1
    cpdef int64_t first_offset(self, int64_t producer_id) noexcept
    cpdef int end(self, int64_t producer_id, bint aborted) except -1


cdef class CommitTable(WordTable):
    cdef int store(self, int64_t cell, int64_t claim, int64_t offset) noexcept
