"""The durable local buffer: opaque payloads in encrypted, append-only segments; independent of Kafka.

`kafka/partition_writer.py` drains it.
"""
