"""Share groups, queues, exchanges and schedules: RabbitMQ's and SQS's models over the log."""
