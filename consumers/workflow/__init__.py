"""Starts workflows and tells them what has happened; runs timers for what waits too long."""
