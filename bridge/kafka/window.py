"""What of one partition is taken in and not settled, and up to where everything is."""
