"""Values to send, the same in every run: random text, and order events as JSON."""

from __future__ import annotations

import json
import random


def texts(count: int, size: int = 100) -> list[bytes]:
    """Values of `size` bytes, each different."""
    generator = random.Random(1)
    filler = generator.randbytes(max(1 << 20, size)).hex().encode()
    places = generator.choices(range(len(filler) - size), k=count)
    return [b"%012d" % number + filler[place : place + size - 12] for number, place in enumerate(places)]


def orders(count: int) -> list[bytes]:
    """Order events as JSON, about 250 bytes each."""
    generator = random.Random(2)
    return [
        json.dumps(
            {
                "messageId": f"{generator.getrandbits(64):016x}",
                "type": "OrderPlaced",
                "source": "order-service",
                "data": {
                    "order_id": f"o-{number}",
                    "customer": generator.randrange(5000),
                    "total_cents": generator.randrange(100_000),
                    "items": [{"sku": generator.randrange(900), "quantity": generator.randrange(1, 9)}] * 3,
                },
            }
        ).encode()
        for number in range(count)
    ]
