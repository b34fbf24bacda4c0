"""Clients without a secret, in a separate process: `python -m tests.faults.ingress.attackers KIND PORT COUNT`.

Each runs until it is stopped, and reconnects when it is disconnected.
"""

import asyncio
import contextlib
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from bridge.dev.ports import HOST

Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# Of the environment: the path of a source, since an unknown one is refused by its head, and a captured delivery in hex.
PATH, CAPTURED = "DRX_PATH", "DRX_CAPTURED"
POST = f"POST {os.environ.get(PATH, '/')} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY_BYTES = 262_144
HEAD = f"{POST}Content-Length: {BODY_BYTES}\r\n\r\n".encode()
UNSIGNED = f"{POST}Content-Length: 2\r\n\r\n{{}}".encode()
# Far above any honest framing, in one-byte chunks.
CRUMBS = f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode() + b"1\r\nx\r\n" * 21_845
# Two signatures that could be of ed25519, as many as are checked.
PUBLIC = f"v1a,{b64encode(bytes(64)).decode()}"
DEAR = (
    f"{POST}webhook-id: x\r\nwebhook-timestamp: 1\r\nwebhook-signature: {PUBLIC} {PUBLIC}\r\n"
    "Content-Length: 2\r\n\r\n{}"
).encode()
AGAIN_S, RECEIVED_BYTES = 0.05, 2_048
# Open files of a process besides connections; the ingress keeps more, so one attacker reaches its bound with any limit.
SPARE = 64


def _once(sent: bytes) -> Attack:
    async def attack(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await reader.read()

    return attack


def _together(sent: bytes) -> Attack:
    """Send it at the same time as all others, once a second."""

    async def attack(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(1 - time.time() % 1)
            writer.write(sent)
            await reader.readuntil(b"}")

    return attack


async def _deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport reads
    while True:
        writer.write(UNSIGNED * 1_000)
        await writer.drain()


async def _flooding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(UNSIGNED)
        await reader.readuntil(b"}")


async def _hogging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(random.random())  # noqa: S311 - if all were under way, none but a genuine one could make room
    writer.write(bytes.fromhex(os.environ[CAPTURED]))
    await reader.readuntil(b"}")
    writer.write(POST.encode())
    await reader.read()


async def _connecting(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"P")


ATTACKS: dict[str, Attack] = {
    "silent": _once(b""),
    "declaring": _once(HEAD),
    "partial": _once(HEAD + b" " * (BODY_BYTES - 1)),
    "deaf": _deaf,
    "flooding": _flooding,
    "connecting": _connecting,
    "crumbling": _once(CRUMBS),
    "bursting": _together(UNSIGNED),
    "asking": _together(DEAR),
    "hogging": _hogging,
}


async def _attack(attack: Attack, port: int) -> None:
    while True:
        with contextlib.suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection(sock=await _connected(port))
            try:
                await attack(reader, writer)
            finally:
                writer.transport.abort()
        await asyncio.sleep(AGAIN_S)


async def _connected(port: int) -> socket.socket:
    """Connect with the smallest receive buffer, so that unread responses have an effect soon."""
    one = socket.socket()
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
        one.settimeout(0)
        await asyncio.get_running_loop().sock_connect(one, (HOST, port))
    except BaseException:
        one.close()
        raise
    return one


async def _all(attack: Attack, port: int, count: int) -> None:
    await asyncio.gather(*(_attack(attack, port) for _ in range(count)))


@contextmanager
def attacking(kind: str, url: str, count: int, *, captured: bytes = b"") -> Iterator[None]:
    split = urlsplit(url)
    command = [sys.executable, "-m", "tests.faults.ingress.attackers", kind, str(split.port), str(count)]
    environment = os.environ | {PATH: split.path, CAPTURED: captured.hex()}
    process = subprocess.Popen(command, env=environment)  # noqa: S603 - ours
    try:
        yield
        assert process.poll() is None, "the attack has ended by itself"
    finally:
        process.kill()
        process.wait()


def slow_attacks(url: str, *, connections: int, seconds: int) -> Iterator[list[str]]:
    program = shutil.which("slowhttptest", path=f"{os.environ['PATH']}:/usr/local/bin:/usr/bin")
    if program is None:
        pytest.skip("slowhttptest is not installed: `make fault-tools` as root on a Debian, or install it by hand")
    common = f"-c {connections} -r {connections} -l {seconds} -u {url} -t POST -p 30 -f application/json"
    for mode in ("-H -i 1", "-B -i 1 -s 8192", "-X -w 8 -y 16 -n 5 -z 8"):
        yield [program, *mode.split(), *common.split()]


if __name__ == "__main__":
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    asyncio.run(_all(ATTACKS[sys.argv[1]], int(sys.argv[2]), min(int(sys.argv[3]), files - SPARE)))
