"""The page of a local stack: deliveries as they come, the history of a prescription, and what waits."""
