"""Copies every version of every schema into a registry of AWS Glue, oldest first; a second run changes nothing."""

import json
import sys

import boto3

from bridge.registry.loader import bundled

glue = boto3.client("glue")
registry = {"RegistryName": sys.argv[1]}
for entry in bundled().entries:
    definition = json.dumps(entry.schema)
    try:
        done = glue.register_schema_version(
            SchemaId=registry | {"SchemaName": entry.record}, SchemaDefinition=definition
        )["Status"]
    except glue.exceptions.EntityNotFoundException:
        done = glue.create_schema(
            RegistryId=registry,
            SchemaName=entry.record,
            DataFormat="AVRO",
            Compatibility="FULL_ALL",
            SchemaDefinition=definition,
        )["SchemaVersionStatus"]
    sys.stdout.write(f"{entry.record} {entry.version} {done}\n")
