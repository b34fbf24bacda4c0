"""The durable local buffer: opaque payloads in sealed, append-only segments; knows nothing of Kafka.

`kafka/partition_writer.py` drains it.
"""
