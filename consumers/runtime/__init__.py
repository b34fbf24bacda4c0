"""The consumer runtime: records are handled, settled once and in order, parked, released."""
