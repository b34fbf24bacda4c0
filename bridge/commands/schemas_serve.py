"""`drx-bridge schemas serve`: run a read-only registry; `serve_app` runs any small server."""

import asyncio
import signal

import click
from aiohttp import web
from yarl import URL

from bridge.errors import ConfigError
from bridge.registry.loader import bundled
from bridge.registry.server import registry_app
from bridge.runtime.lifecycle import stop_on_signals
from bridge.runtime.process import INTERRUPTED

# Seconds; requests take milliseconds, and a stalled client must not delay shutdown.
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
def serve(*, host: str, port: int) -> int:
    """Serve the bundled schemas as a read-only, Confluent-compatible registry, until SIGTERM."""
    came = asyncio.run(serve_app(registry_app(bundled()), host, port, name="registry"))
    return INTERRUPTED if signal.SIGINT in came[:1] else 0


async def serve_app(app: web.Application, host: str, port: int, *, name: str) -> list[signal.Signals]:
    """Serve `app` until SIGTERM or SIGINT; return the signals received."""
    stop = asyncio.Event()
    came = stop_on_signals(stop)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        click.echo(f"{name} at {URL.build(scheme='http', host=host, port=runner.addresses[0][1])}", err=True)
        await stop.wait()
    except OSError as exc:
        raise ConfigError(f"cannot listen on {host}:{port} (errno {exc.errno}); choose another --port") from None
    finally:
        await runner.cleanup()
    return came
