"""Schemas, their ids and their registry."""
