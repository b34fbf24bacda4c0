#!/bin/sh
# Starts a broker as the script of this name in Apache Kafka does: kafka-server-start.sh SERVER_PROPERTIES.
exec /opt/java/bin/java ${KAFKA_HEAP_OPTS:--Xmx384m} \
  -Dlog4j2.configurationFile=/opt/kafka/config/log4j2.properties \
  -cp '/opt/kafka/libs/*' kafka.Kafka "$@"
