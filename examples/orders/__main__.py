"""`python -m examples.orders`, or `python examples/orders`."""

import sys
from pathlib import Path

if not __package__:  # run as a directory
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.orders.main import main

if __name__ == "__main__":
    main()
