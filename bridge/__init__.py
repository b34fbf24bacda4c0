"""Verified pharmacy webhooks into Kafka: never lost, forged or reordered; docs/architecture.md follows one event."""
