"""`drx-bridge schemas push`: register our schemas in a foreign registry and record the ids it gives."""

import asyncio
import json
from http import HTTPStatus
from pathlib import Path

import click

from bridge.errors import ConfigError
from bridge.kafka.routing import RoutingTable
from bridge.registry.address import RegistryAddress
from bridge.registry.client import RegistryRefusedError, open_client
from bridge.registry.ids import Wanted, read_ids, wanted, write_ids
from bridge.registry.loader import bundled
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.process import FAILED
from bridge.settings import load_settings


@click.command()
@click.option("--url", help="The registry; default: BRIDGE_REGISTRY__URL.")
@click.option(
    "--ids-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to record the ids; default: BRIDGE_REGISTRY__IDS_FILE.",
)
@audit_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def push(*, url: str | None, ids_file: Path | None, actor: str, reason: str, as_json: bool) -> int:
    """Register every locked schema under the topics of the routing, in lock order; exit 1 if one is refused."""
    settings = load_settings()
    url, ids_file = url or settings.registry.url, ids_file or settings.registry.ids_file
    if url is None:
        raise ConfigError("schemas push: no registry; give --url or set BRIDGE_REGISTRY__URL")
    schemas = wanted(bundled().entries, RoutingTable(settings.kafka.routes).topics_of_type)
    address = settings.registry.model_copy(update={"url": url})
    try:
        with audited("schemas.push", actor=actor, reason=reason, schemas=len(schemas)):
            ids = asyncio.run(_push(schemas, address))
    except RegistryRefusedError as exc:
        click.echo(f"refused: {exc}{_advice(exc)}", err=True)
        return FAILED
    if ids_file is not None:
        _record(ids_file, url, {each.digest: ids[each.digest] for each in schemas})
    _print(schemas, ids, ids_file, as_json=as_json)
    return 0


async def _push(schemas: list[Wanted], address: RegistryAddress) -> dict[str, int]:
    """Return digest -> id; schemas already registered keep their ids, so a push can be repeated."""
    ids: dict[str, int] = {}
    async with open_client(address) as client:
        for each in schemas:
            known = await client.look_up(each.subject, each.schema)
            ids[each.digest] = await client.register(each.subject, each.schema) if known is None else known
    return ids


def _record(path: Path, url: str, ids: dict[str, int]) -> None:
    """Add the ids to those already in the file for this registry, since older running releases still need theirs."""
    try:
        write_ids(path, url, {**read_ids(path, url), **ids})
    except OSError as exc:
        msg = f"{path}: cannot be written (errno {exc.errno}); the ids are registered, push again to record them"
        raise ConfigError(msg) from None


def _advice(refused: RegistryRefusedError) -> str:
    if refused.status == HTTPStatus.CONFLICT:
        return "; its compatibility level forbids this version, nothing after it was registered"
    if refused.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return "; set BRIDGE_REGISTRY__USERNAME_FILE and BRIDGE_REGISTRY__PASSWORD_FILE to an account that may write"
    return ""


def _print(schemas: list[Wanted], ids: dict[str, int], ids_file: Path | None, *, as_json: bool) -> None:
    if as_json:
        rows = [{"subject": each.subject, "record": each.record, "id": ids[each.digest]} for each in schemas]
        click.echo(json.dumps({"schemas": rows, "ids_file": None if ids_file is None else str(ids_file)}))
        return
    for each in schemas:
        click.echo(f"{ids[each.digest]:>10}  {each.subject}")
    where = f"recorded in {ids_file}" if ids_file else "not recorded; give --ids-file to keep them for the bridge"
    click.echo(f"{len(schemas)} schemas registered; ids {where}", err=True)
