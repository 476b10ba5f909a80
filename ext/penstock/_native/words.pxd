from libc.stdint cimport int64_t

from penstock._native.mapping cimport Mapping


cdef class WordTable:
    cdef readonly Mapping map
    cdef readonly bint written
    cdef int64_t reserved
    cdef int64_t *at(self, int64_t number) noexcept
    cdef bint holds(self, int64_t number) noexcept
    cdef int64_t load(self, int64_t number) noexcept


cdef class OpenTransactions(WordTable):
    cdef int64_t used(self) noexcept


cdef class CommitTable(WordTable):
    cdef int store(self, int64_t cell, int64_t claim, int64_t offset) noexcept
