"""The public port: from a POST to its response."""
