"""Known ids of deliveries and events: which are durable, and which body is the newest of a key."""
