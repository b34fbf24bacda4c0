"""Write and read records: topics, keys, Avro, and the wrapped client."""
