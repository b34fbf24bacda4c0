"""Independent consumer services on the topics that the bridge writes."""
