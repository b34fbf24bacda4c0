"""Whether a sink may be called: closed, open, or half open for a probe."""
