"""Whether a process exports traces: only then is OpenTelemetry, the extra `otel`, imported.

The standard variables `OTEL_…` decide that and all else; the bridge has no settings of its own for traces.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from bridge.runtime.otlp import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@contextmanager
def open_tracing(service: str) -> Iterator[Tracing | None]:
    """Export traces under the name `service` if an endpoint is set and nothing turns them off; else yield None.

    Raises:
        ConfigError: The extra is not installed, or a variable has a value that is not possible.
    """
    get = os.environ.get
    endpoint = next(filter(get, _ENDPOINTS), None)
    if endpoint is None or get("OTEL_SDK_DISABLED", "").lower() == "true" or get("OTEL_TRACES_EXPORTER") == "none":
        yield None
        return
    protocol = next(filter(get, _PROTOCOLS), "")
    if protocol and get(protocol) != "http/protobuf":
        raise ConfigError(f"{protocol}: traces are exported by http/protobuf only")
    try:
        from bridge.runtime.otlp import Tracing  # noqa: PLC0415 - 7 MB and 0.14 s of CPU, which others save

        tracing = Tracing(service)
    except ModuleNotFoundError as exc:
        raise ConfigError(f"{endpoint} needs {exc.name}: install the package with its extra `otel`") from exc
    except ValueError as exc:
        raise ConfigError("a variable OTEL_… has a value that OpenTelemetry refuses") from exc
    try:
        yield tracing
    finally:
        tracing.close()
