"""The read model: what is true of every prescription now, and everything that was ever said about it."""
