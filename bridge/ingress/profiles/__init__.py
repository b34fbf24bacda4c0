"""One module per source dialect."""
