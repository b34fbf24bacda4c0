"""The page of a local stack: deliveries as they come, the story of a prescription, and what waits."""
