"""What the registry's integration tests pass around."""

import subprocess
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    record: str
    value: dict[str, Any]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Served:
    url: str
    process: subprocess.Popen[str]
