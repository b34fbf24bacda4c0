#!/bin/sh
# Formats a log directory as the script of this name in Apache Kafka does: kafka-storage.sh format …
exec /opt/java/bin/java -Xmx64m \
  -Dlog4j2.configurationFile=/opt/kafka/config/log4j2.properties \
  -cp '/opt/kafka/libs/*' kafka.tools.StorageTool "$@"
