"""The values that are sent: distinct, made once, repeated block by block until the count is reached."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bench.values import orders, texts

BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Load:
    """`count` values of `size` bytes. `json`: order events instead of random text. `keyed`: 10,000 different keys.

    `distinct`: how many different values at most; 0 for as many as 64 MiB hold.
    """

    count: int
    size: int = 100
    json: bool = False
    keyed: bool = False
    partitions: int = 1
    lz4: bool = False
    distinct: int = 0

    @classmethod
    def of(cls, options: dict[str, Any], count: int) -> Load:
        """From a workload's options."""
        known = {name: options[name] for name in ("size", "json", "keyed", "partitions", "lz4") if name in options}
        return cls(count, **known)

    def sized(self, count: int) -> Load:
        """The same with another count, from the same values if there are enough."""
        other = replace(self, count=count)
        wanted = other._different()
        if wanted <= len(self.block):
            other.__dict__["block"] = self.block[:wanted]  # where cached_property keeps it
        return other

    def _different(self) -> int:
        return max(1, min(self.count, self.distinct or self.count, BLOCK_BYTES // (self.size + 33)))

    @cached_property
    def block(self) -> list[bytes]:
        """At most 64 MiB of values."""
        return orders(self._different()) if self.json else texts(self._different(), self.size)

    @cached_property
    def keys(self) -> list[bytes] | None:
        """A key for each value of the block."""
        if not self.keyed:
            return None
        generator = random.Random(3)
        names = [b"customer-%d" % number for number in range(10_000)]
        return generator.choices(names, k=len(self.block))

    @cached_property
    def array(self) -> Any:
        """The block as a (n, size) array of bytes."""
        import numpy as np

        return np.frombuffer(b"".join(self.block), np.uint8).reshape(-1, self.size)

    @cached_property
    def parts(self) -> list[tuple[list[bytes], list[bytes] | None]]:
        """Lists of values (and their keys) that make up the count. Made before the clock starts."""
        whole, rest = divmod(self.count, len(self.block))
        last = self.block[:rest], None if self.keys is None else self.keys[:rest]
        return [(self.block, self.keys)] * whole + [last] * bool(rest)

    def blocks(self) -> Iterator[tuple[list[bytes], list[bytes] | None]]:
        """The parts, one after the other."""
        return iter(self.parts)

    def chunks(self, most: int) -> Iterator[list[bytes]]:
        """The values in lists of at most `most`."""
        for part, _ in self.blocks():
            for first in range(0, len(part), most):
                yield part[first : first + most]
