"""Kafka's model: broker, topics, producers, consumers."""
