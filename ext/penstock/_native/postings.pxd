from libc.stdint cimport int64_t, uint64_t

from penstock._native.format cimport record_fields


cdef extern from "postings.h" nogil:
    ctypedef struct posting:
        uint64_t hash
        uint64_t number
        uint64_t position

    ctypedef struct event_fields:
        int64_t version
        int64_t schema
        int64_t type_length
        int64_t tag_count
        const char *type
        const char *tags

    enum:
        POSTING_BYTES
        BLOCK_ROWS
        BLOCK_BYTES
        RUN_HEADER_BYTES
        MERGE_MOST
        TERM_STREAM
        TERM_STATE
        TERM_TYPE
        TERM_TAG
        TERM_CATEGORY
        RECORD_FOREIGN
        RECORD_EVENT
        RECORD_STATE
        RECORD_BROKEN

    uint64_t term_hash_mask
    uint64_t term_hash(char kind, const char *p, int64_t size)
    void postings_sort(posting *rows, posting *spare, int64_t count)
    void postings_merge(const posting **runs, const int64_t *counts, int n, posting *out)
    void postings_directory(const posting *rows, int64_t count, int bits, uint64_t *directory)
    int event_read(const record_fields *r, event_fields *e)
    const char *tag_read(const char *p, const char *end, const char **tag, int64_t *length)
