"""What is known of the ids of deliveries and events: what was made durable, and which body is the newest of a key."""
