"""The page of a local stack: deliveries as they arrive, the history of a prescription, and records that wait."""
