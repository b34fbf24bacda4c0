"""The durable local buffer: opaque payloads in sealed, append-only segments; knows nothing of Kafka."""
