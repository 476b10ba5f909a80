"""A read-only run of stored batches, wherever it lies; `owner` keeps the memory alive.

Thread safety: immutable. Its bytes are stored already and do not change; compaction and retention make other files.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t


cdef class _Held:
    """Keeps another object's buffer exported."""
    cdef Py_buffer view
    cdef bint held

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef class Region:
    """Whole record batches in memory. `path` and `position` say where they lie on the disk, for error messages."""

    @staticmethod
    def from_buffer(buffer, str path="", int64_t position=0):
        """A region over any bytes-like object."""
        cdef _Held held = _Held.__new__(_Held)
        cdef Region region = Region.__new__(Region)
        PyObject_GetBuffer(buffer, &held.view, PyBUF_SIMPLE)
        held.held = True
        region.data = <const char *>held.view.buf
        region.size = held.view.len
        region.path = path
        region.position = position
        region.owner = held
        return region

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, <void *>self.data, self.size, 1, flags)

    def __releasebuffer__(self, Py_buffer *view):
        pass
