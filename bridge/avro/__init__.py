"""Event values to Avro in the wire format of a schema registry, and back."""
