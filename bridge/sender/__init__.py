"""Senders of deliveries, for commands that post: sign, post and retry."""
