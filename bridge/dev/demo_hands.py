"""What the demo does as others would: a foreign producer, a power cut, and an operator at a shell."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaProducer  # noqa: TID251 - writes what our own producer never would
from aiokafka.errors import KafkaError  # noqa: TID251 - as above

from bridge.dev.services import child_environment
from bridge.dev.stack import Stack
from bridge.errors import ConfigError
from bridge.kafka.connection import Connection, reachable

# Commands answer within a second; the last resort against one that hangs.
_COMMAND_S = 30.0
MODULES = {"drx-bridge": "bridge", "drx-consumer": "consumers"}


class Output(NamedTuple):
    """What a command said, as on a screen, and how it ended."""

    command: str
    text: str
    code: int


class Intruder:
    """Writes past the bridge."""

    def __init__(self, bootstrap_servers: str) -> None:
        """Write to these brokers."""
        self._bootstrap_servers = bootstrap_servers

    async def write(self, topic: str, partition: int, *, key: str, value: bytes) -> int:
        """Write one record without headers; return its offset.

        Raises:
            ConfigError: The brokers refuse.
        """
        try:
            async with AIOKafkaProducer(bootstrap_servers=self._bootstrap_servers, acks="all") as producer:
                written = await producer.send_and_wait(topic, value, key=key.encode(), partition=partition)
        except KafkaError as exc:
            msg = f"{topic} cannot be written to past the bridge: {type(exc).__name__}"
            raise ConfigError(msg) from exc
        offset: int = written.offset
        return offset


class PowerSwitch:
    """Takes the brokers of a stack away and brings them back."""

    def __init__(self, stack: Stack) -> None:
        """Switch those of `stack`."""
        self._stack = stack
        self._servers = Connection(stack.endpoints["bootstrap_servers"]).servers

    async def stop(self) -> None:
        """End every broker at once."""
        await asyncio.to_thread(self._stack.stop_brokers)

    async def start(self) -> None:
        """Bring them back; return when they answer."""
        await asyncio.to_thread(self._stack.start_brokers)

    async def answering(self) -> list[str]:
        """Return those that take a connection."""
        return await reachable(self._servers)


class Operator:
    """Runs one of our programs as a person would at a shell with its settings."""

    def __init__(self, program: str, settings: Mapping[str, str]) -> None:
        """Run `program`, which is a key of `MODULES`."""
        self._program = program
        self._env = child_environment(os.environ, settings)

    async def run(self, *arguments: str) -> Output:
        """Run it to its end.

        Raises:
            ConfigError: It does not end.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", MODULES[self._program], *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._env,
        )
        command = shlex.join([self._program, *arguments])
        try:
            told, _ = await asyncio.wait_for(process.communicate(), _COMMAND_S)
        except TimeoutError as exc:
            msg = f"`{command}` does not end"
            raise ConfigError(msg) from exc
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Output(command, told.decode("utf-8", "replace").rstrip(), process.returncode or 0)
