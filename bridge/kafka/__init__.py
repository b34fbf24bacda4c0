"""Write and read records: topics, keys, Avro, the client behind its door."""
