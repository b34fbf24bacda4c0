"""Rewrite a lock of jars, after a change of the table below: `python -m tests.relock NAME`."""

import sys
import tempfile
from pathlib import Path

from jgo.env._lockfile import LockFile
from jgo.maven import MavenContext
from jgo.parse import Endpoint

from bridge.dev.jars import LOCK
from tests.engines import engines
from tests.fhir import hapi as fhir
from tests.hl7v2 import hapi
from tests.temporal import server

COORDINATES = {
    # `!` uses each project's versions of its dependencies: without it, log4j's list of tested versions (its
    # dependencyManagement) puts kafka-clients 3.9 beside a 4.3 broker.
    "kafka": (LOCK, "org.apache.kafka:kafka_2.13:4.3.1!+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"),
    # ecj compiles the server, here and below.
    "fhir": (
        fhir.LOCK,
        "+".join(
            f"{each}!"
            for each in (
                "ca.uhn.hapi.fhir:hapi-fhir-jpaserver-base:8.8.0",
                "ca.uhn.hapi.fhir:hapi-fhir-structures-r4:8.8.0",
                "ca.uhn.hapi.fhir:hapi-fhir-validation:8.8.0",
                "ca.uhn.hapi.fhir:hapi-fhir-validation-resources-r4:8.8.0",
                "ca.uhn.hapi.fhir:hapi-fhir-caching-caffeine:8.8.0",
                "ca.uhn.hapi.fhir:hapi-fhir-server:8.8.0",
                "com.h2database:h2:2.3.232",
                "org.eclipse.jetty.ee10:jetty-ee10-servlet:12.0.16",
                "org.eclipse.jdt:ecj:3.38.0",
            )
        ),
    ),
    "hl7v2": (
        hapi.LOCK,
        "ca.uhn.hapi:hapi-base:2.6.0+ca.uhn.hapi:hapi-structures-v251:2.6.0+org.eclipse.jdt:ecj:3.38.0",
    ),
    # Flink's have what they need within.
    "flink": (
        engines.FLINK,
        "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2+org.apache.flink:flink-sql-avro-confluent-registry:2.3.0",
    ),
    "spark": (
        engines.SPARK,
        (
            "org.apache.spark:spark-sql-kafka-0-10_2.13:4.1.1+"
            "org.apache.spark:spark-avro_2.13:4.1.1+"
            "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.12.0"
        ),
    ),
    # As Maven resolves the page's pom.xml: each project's versions.
    "connect": (
        engines.CONNECT,
        (
            "org.apache.kafka:connect-runtime:4.3.1!+"
            "io.apicurio:apicurio-registry-utils-converter:2.6.13.Final!+"
            "org.apache.iceberg:iceberg-kafka-connect:1.12.0!+"
            "org.apache.iceberg:iceberg-parquet:1.12.0!+"
            "org.apache.hadoop:hadoop-client-runtime:3.4.2!+"
            "org.slf4j:slf4j-simple:1.7.36!"
        ),
    ),
    "temporal": (server.LOCK, "io.temporal:temporal-test-server:1.32.0"),
}


def main(name: str) -> None:
    path, coordinates = COORDINATES[name]
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch))
        wanted = [context.create_dependency(part) for part in Endpoint.parse(coordinates).coordinates]
        inputs, transitive = context.resolver.resolve(wanted)
        # `JarCache` knows no classifiers; the one jar that has one, orc-core of "connect", is for files of ORC.
        needed = (found for found in transitive if found.scope in {"compile", "runtime"} and not found.classifier)
        LockFile.from_resolved_dependencies([*inputs, *needed], environment_name=name, min_java_version=17).save(path)


if __name__ == "__main__":
    main(sys.argv[1])
