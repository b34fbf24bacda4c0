"""`drx-bridge schemas serve`: the embedded registry as a process."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click
from aiohttp import web

from bridge.errors import ConfigError
from bridge.registry.loader import bundled
from bridge.registry.server import registry_app
from bridge.registry.store import Store
from bridge.registry.store_open import open_store
from bridge.runtime.lifecycle import INTERRUPTED, stop_on_signals

# Requests take milliseconds; a client that stalls must not hold up a stop.
DRAIN_S = 2.0


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8081,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keeps what others register; without it that is gone after a stop.",
)
@click.option("--read-only", is_flag=True, help="Take nothing new.")
def serve(*, host: str, port: int, path: Path | None, read_only: bool) -> int:
    """Serve the bundled schemas, and what others register, as a Confluent-compatible registry until SIGTERM."""
    came = asyncio.run(_serve(open_store(bundled(), path=path, read_only=read_only), host, port))
    return INTERRUPTED if signal.SIGINT in came[:1] else 0


async def _serve(store: Store, host: str, port: int) -> list[signal.Signals]:
    stop = asyncio.Event()
    came = stop_on_signals(stop)
    runner = web.AppRunner(registry_app(store), access_log=None, shutdown_timeout=DRAIN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        click.echo(f"registry at {_address(host, runner.addresses[0][1])}", err=True)
        await stop.wait()
    except OSError as exc:
        msg = f"cannot listen on {host}:{port} (errno {exc.errno}); choose another --port"
        raise ConfigError(msg) from None
    finally:
        await runner.cleanup()
    return came


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
