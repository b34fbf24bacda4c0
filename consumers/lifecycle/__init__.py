"""The state of a prescription: facts, the state machines that keep them, and their roll-up."""
