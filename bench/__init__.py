"""Benchmarks: `python -m bench.peers` prints the comparison table; `pytest bench` times single operations."""
