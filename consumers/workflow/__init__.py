"""Starts and signals workflows for events, and for overdue waits."""
