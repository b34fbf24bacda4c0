"""The one place that decides what becomes of a record that could not be applied."""
