"""Engines: the fast way from the body of a plainly conforming delivery to its encoded event."""
