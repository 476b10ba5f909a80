"""Penstock side by side with Apache Kafka and others, on one machine by one command: `python -m bench.compare`."""
