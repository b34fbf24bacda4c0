"""Sends every event on to an HTTP endpoint, signed as Standard Webhooks."""
