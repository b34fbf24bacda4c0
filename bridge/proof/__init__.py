"""Prove where a delivery comes from: the interface of every scheme, the schemes, and the keys in secret files."""
