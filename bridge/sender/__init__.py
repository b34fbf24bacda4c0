"""What senders do, for verbs that post: sign each delivery, post it, and retry."""
