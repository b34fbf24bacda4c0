"""The event contract as typed models."""
