"""A file mapped into memory, shared with every process that maps it.

Ownership: a `Mapping` owns its descriptor and its map; both go when the last reference does, so a slice handed to a
caller stays valid as long as the object that exports it. The map may be longer than the file: bytes past the end of the
file must not be touched (callers keep to what is published). Counters of live maps and descriptors serve leak tests.

Thread and process safety: any; what the bytes mean, and who may change them, is the owner's matter. Crash policy: what was
written to a map survives the process at once, and the machine once its file is synced.
"""

import errno
import os

from libc.errno cimport errno as c_errno
from libc.stdint cimport int64_t

from penstock.errors import CorruptionError, DataDirectoryError, DiskFullError


cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *addr, size_t length, int prot, int flags, int fd, int64_t offset)
    int munmap(void *addr, size_t length)
    int PROT_READ, PROT_WRITE, MAP_SHARED
    void *MAP_FAILED


cdef extern from "<fcntl.h>" nogil:
    int c_open "open"(const char *path, int flags, int mode)
    int O_RDONLY, O_RDWR, O_CREAT, O_CLOEXEC


cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)


cdef extern from "<sys/stat.h>" nogil:
    struct c_stat "stat":
        int64_t st_size
    int fstat(int fd, c_stat *out)


cdef Py_ssize_t _maps = 0
cdef Py_ssize_t _descriptors = 0


def live_mappings():
    """Number of maps this process holds now."""
    return _maps


def live_descriptors():
    """Number of file descriptors that mappings hold now."""
    return _descriptors


def os_error(int code, str path, str doing):
    """The typed error for an errno: `DiskFullError`, `DataDirectoryError` or `OSError`."""
    message = f"{doing} {path}: {os.strerror(code)}"
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFullError(code, message)
    if code in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return DataDirectoryError(code, message)
    return OSError(code, message)


cdef class Mapping:
    """`Mapping(path, length, writable=False, create=False)`: the first `length` bytes of a file.

    Raises `DiskFullError`, `DataDirectoryError` (permissions) or `OSError`.
    """

    def __cinit__(self):
        self.data = NULL
        self.fd = -1

    def __init__(self, str path not None, Py_ssize_t length, bint writable=False, bint create=False):
        global _maps, _descriptors
        cdef bytes name = os.fsencode(path)
        cdef const char *raw = name
        cdef int flags = (O_RDWR if writable else O_RDONLY) | O_CLOEXEC
        cdef void *where
        if create:
            flags |= O_CREAT
        self.path = path
        self.writable = writable
        with nogil:
            self.fd = c_open(raw, flags, 0o644)
        if self.fd < 0:
            raise os_error(c_errno, path, "opening")
        _descriptors += 1
        if length == 0:
            return
        with nogil:
            where = mmap(NULL, length, PROT_READ | (PROT_WRITE if writable else 0), MAP_SHARED, self.fd, 0)
        if where == MAP_FAILED:
            raise os_error(c_errno, path, "mapping")
        self.data = <char *>where
        self.length = length
        _maps += 1

    def __dealloc__(self):
        global _maps, _descriptors
        if self.data != NULL:
            munmap(self.data, self.length)
            self.data = NULL
            _maps -= 1
        if self.fd >= 0:
            c_close(self.fd)
            self.fd = -1
            _descriptors -= 1

    cpdef int64_t file_size(self) except -1:
        """Bytes in the file now."""
        cdef c_stat out
        if fstat(self.fd, &out) != 0:
            raise os_error(c_errno, self.path, "reading the size of")
        return out.st_size

    cdef int64_t size_or_zero(self) noexcept:
        cdef c_stat out
        return out.st_size if fstat(self.fd, &out) == 0 else 0

    def read(self, int64_t position, Py_ssize_t size):
        """A copy of `size` bytes at `position`; `CorruptionError` when the file is shorter."""
        if position < 0 or size < 0 or position + size > self.length or position + size > self.file_size():
            raise CorruptionError("the file ends early", self.path, position, f"{size} bytes", self.file_size() - position)
        return self.data[position:position + size]
