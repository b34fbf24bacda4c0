"""Flink and Spark on the topics, as docs/engines.md shows them: `make engines`."""
