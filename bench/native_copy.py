"""Compiles `native_copy.c` with the machine's C compiler and calls it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

Copy = Callable[[Path, bytes, int, int], AbstractContextManager[Callable[[], None]]]


def build(directory: Path) -> Copy:
    """`with copy(path, source, count, width) as loop: loop()`: the bare native loop into a preallocated map."""
    library = directory / "native_copy.so"
    source = Path(__file__).with_name("native_copy.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    native = ctypes.CDLL(str(library))
    native.map_file.restype = ctypes.c_void_p
    native.map_file.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    native.copy_records.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t]
    native.unmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

    @contextmanager
    def copy(path: Path, data: bytes, count: int, width: int) -> Iterator[Callable[[], None]]:
        path.unlink(missing_ok=True)
        target = native.map_file(os.fsencode(path), count * width)
        if not target:
            raise OSError(f"{path} cannot be made and mapped")
        yield lambda: native.copy_records(target, data, count, width)
        native.unmap(target, count * width)

    return copy
