"""`drx-bridge mapping check`: does a mapping file compile, and what does it make of the vendor's samples."""

from __future__ import annotations

from pathlib import Path

import click

from bridge.commands.outcome import BODY_MAX_BYTES, Mapper, masker_of, show
from bridge.errors import ConfigError
from bridge.ingress.profiles.mapped import configure
from bridge.kafka.routing import RoutingTable
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.findings import counted
from bridge.runtime.process import Group
from bridge.settings import Kafka


@click.group(cls=Group)
def mapping() -> None:
    """Check what a mapping file makes of a vendor's bodies."""


@mapping.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("bodies", nargs=-1, type=click.Path(path_type=Path))
@click.option("--account-id", default="acct_check", show_default=True, help="Option account_id of the source.")
@click.option("--zone", default="", help="Option zone of the source.")
@click.option("--show-phi", is_flag=True, help="Show health information instead of masking it.")
@audit_options
@click.option("--json", "as_json", is_flag=True, help="One JSON line per body.")
def check(
    *,
    file: Path,
    bodies: tuple[Path, ...],
    account_id: str,
    zone: str,
    show_phi: bool,
    actor: str,
    reason: str,
    as_json: bool,
) -> int:
    """Compile the mapping FILE and show what it makes of each of the BODIES; exit 1 if one of them would be parked.

    Health information is masked unless --show-phi asks for it, which writes an audit line.
    """
    options = {"mapping": str(file), "account_id": account_id} | ({"zone": zone} if zone else {})
    try:
        compiled = configure(options)
    except ConfigError as exc:
        raise ConfigError(str(exc).removeprefix("options.mapping: ")) from None
    mapper = Mapper(
        compiled,
        source="check",
        environment="sandbox",
        routing=RoutingTable(),
        partitions=Kafka.model_fields["partitions"].default,
        body_max_bytes=BODY_MAX_BYTES,
        masker=None if show_phi else masker_of(as_json=as_json),
    )
    with audited("mapping.check", actor=actor, reason=reason, dry_run=not show_phi, show_phi=True, file=str(file)):
        is_sound = show(mapper, bodies, as_json=as_json)
        if not as_json:
            click.secho(f"{file}: {counted(len(compiled.file.events), 'event')}, sha256 {compiled.sha256}", dim=True)
    return int(not is_sound)
