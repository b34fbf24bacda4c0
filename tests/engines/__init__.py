"""Flink, Spark and Kafka Connect on the topics, as docs/engines.md shows them: `make engines`."""
