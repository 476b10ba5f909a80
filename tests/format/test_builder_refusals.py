"""Bad input is refused with an error that names it, and leaves the batch as it was."""

from __future__ import annotations

import array

import numpy as np
import pytest

from penstock._native.builder import BatchBuilder
from penstock.errors import InvalidArgumentError, InvalidTypeError


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        (("text", None, None), InvalidTypeError, "value is str"),
        ((5, None, None), InvalidTypeError, "value is int"),
        ((b"", "text", None), InvalidTypeError, "key is str"),
        ((memoryview(b"abcd")[::2], None, None), InvalidTypeError, "value is memoryview"),
        ((b"", None, 5), InvalidTypeError, "headers is int"),
        ((b"", None, "text"), InvalidTypeError, "headers is str"),
        ((b"", None, [("a", b"", b"")]), InvalidTypeError, r"headers\[0\]"),
        ((b"", None, [("a", b""), (b"b", b"")]), InvalidTypeError, r"headers\[1\]"),
        ((b"", None, [("a", "text")]), InvalidTypeError, r"headers\[0\] \('a'\)"),
        ((b"", None, [("\ud800", b"")]), InvalidArgumentError, r"headers\[0\]"),
    ],
)
def test_append(arguments, error, named):
    builder = BatchBuilder()
    with pytest.raises(error, match=named):
        builder.append(*arguments, 1)
    assert (builder.count, builder.size_bytes) == (0, 61)


def test_append_list_names_the_index():
    with pytest.raises(InvalidTypeError, match=r"values\[2\] is str"):
        BatchBuilder().append_list([b"", b"", "text"], 0, 1, 1 << 20)


def test_a_view_of_wide_items_is_stored_by_its_bytes(parse):
    builder = BatchBuilder()
    wide = memoryview(array.array("i", [1, 2]))
    builder.append(wide, wide, [("h", wide)], 1)
    builder.seal()
    (record,) = parse(bytes(builder))
    assert (record.value, record.key, record.headers) == (wide.tobytes(), wide.tobytes(), [("h", wide.tobytes())])


def test_an_empty_batch_cannot_be_sealed():
    with pytest.raises(InvalidArgumentError, match="empty batch"):
        BatchBuilder().seal()


@pytest.mark.parametrize(("width", "start", "stop"), [(8, 0, 2), (-1, 0, 1), (1, -1, 1), (1 << 40, 0, 1 << 40)])
def test_items_outside_of_the_buffer(width, start, stop):
    with pytest.raises(InvalidArgumentError, match="not in a buffer"):
        BatchBuilder().append_fixed(bytes(15), width, start, stop, 1, 1 << 20)


@pytest.mark.parametrize("offsets", [[0, 16], [-1, 3], [5, 3], [1 << 62, -(1 << 62)]])
def test_ranges_outside_of_the_buffer(offsets):
    with pytest.raises(InvalidArgumentError, match="offsets"):
        BatchBuilder().append_ranges(bytes(15), np.array(offsets, np.int64), 0, 1, 1, 1 << 20)


def test_too_few_offsets():
    with pytest.raises(InvalidArgumentError, match="need 3 offsets"):
        BatchBuilder().append_ranges(bytes(15), np.array([0, 1], np.int64), 0, 2, 1, 1 << 20)


def test_an_unsealed_batch_is_not_exported():
    with pytest.raises(BufferError, match="not sealed"):
        memoryview(BatchBuilder())
