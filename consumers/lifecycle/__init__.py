"""What the events of a prescription add up to: facts, the machines that keep them, and one state."""
