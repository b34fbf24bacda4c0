"""Authenticate deliveries: the interface of every scheme, the schemes, and the keys in secret files."""
