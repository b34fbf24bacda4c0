"""Prove and understand deliveries: bytes in, events out."""
