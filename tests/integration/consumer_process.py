"""A `drx-consumer run` process for a test, configured by environment and observed from outside."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from bridge.dev.ports import free_port
from tests.forked import run
from tests.installed import install
from tests.integration.service_process import HANG_S, NO_AUTHORITIES, ServiceProcess
from tests.postgres import execute

# A group notices a killed member after its session, for which brokers require at least 6 s.
SESSION_S = "10"


class ConsumerProcess(ServiceProcess):
    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        bootstrap_servers: str,
        dsn: str,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
        **settings: str,
    ) -> None:
        """Start it and do not wait.

        `name` is its entry point, `env` may have the result of `install_code` or a failpoint, and `settings` are
        variables without their prefix, such as `READ_MODEL__SCHEMA`.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        port = free_port()
        settled = consumer_environment(bootstrap_servers=bootstrap_servers, dsn=dsn, env=env, **settings)
        super().__init__(
            command or [sys.executable, "-m", "consumers", "run", name],
            settled | {"CONSUMER_MANAGEMENT__HOST": "127.0.0.1", "CONSUMER_MANAGEMENT__PORT": str(port)},
            outputs=(directory / f"{name}-{port}.stdout", directory / f"{name}-{port}.stderr"),
            management_url=f"http://127.0.0.1:{port}",
        )


def consumer_environment(
    *, bootstrap_servers: str, dsn: str, env: Mapping[str, str] | None = None, **settings: str
) -> dict[str, str]:
    """The environment with only these settings; a group without offsets begins with the first record."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(("BRIDGE_", "CONSUMER_"))}
    return (
        clean
        | NO_AUTHORITIES
        | {
            "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
            "CONSUMER_KAFKA__OFFSET_RESET": "earliest",
            "CONSUMER_KAFKA__SESSION_S": SESSION_S,
            "CONSUMER_POSTGRES__DSN": dsn,
        }
        | dict(env or {})
        | {f"CONSUMER_{name}": value for name, value in settings.items()}
    )


async def drx_consumer(env: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run one command to its end; return exit code, stdout and stderr."""
    return await asyncio.to_thread(run, [sys.executable, "-m", "consumers", *arguments], env, timeout_s=HANG_S)


@dataclass(frozen=True, slots=True)
class Commands:
    """Run commands of one consumer, such as `init`, or `parked retry`."""

    name: str
    env: Mapping[str, str]
    dsn: str

    async def __call__(self, command: str, *arguments: str) -> tuple[int, str, str]:
        return await drx_consumer(self.env, *command.split(), self.name, *arguments)

    async def lines(self, command: str, *arguments: str) -> list[dict[str, Any]]:
        code, out, err = await self(command, *arguments, "--json")
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def rows(self, query: str) -> list[Any]:
        return execute(self.dsn, query)[0]


def install_code(directory: Path, name: str, code: str) -> dict[str, str]:
    """Create a package whose module defines `consumer`, found by that name; return the environment to find it."""
    module = f"{name.replace('-', '_')}_consumer"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{module}.py").write_text(dedent(code))
    return install(directory, {name: f"{module}:consumer"})
