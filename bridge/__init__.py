"""Verified pharmacy webhooks into Kafka: never lost, forged or reordered."""
