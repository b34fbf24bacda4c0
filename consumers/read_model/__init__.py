"""The read model: the current state of every prescription, and its history."""
