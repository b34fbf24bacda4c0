"""The state of a prescription: facts, the machines that keep them, and their roll-up."""
