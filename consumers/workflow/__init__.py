"""Starts and signals workflows for events, and for what is overdue."""
