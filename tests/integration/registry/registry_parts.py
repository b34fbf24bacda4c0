"""What the registry's integration tests pass around."""

import subprocess
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One native sample as the ingress maps it and the codec writes it."""

    name: str
    record: str
    value: dict[str, Any]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Served:
    """A running `drx-bridge schemas serve`."""

    url: str
    process: subprocess.Popen[str]
