"""The embedded stack and the simulated sender."""
