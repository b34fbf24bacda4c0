"""Independent consumer services on the topics that the bridge writes; docs/write-a-consumer.md shows how to add one."""
