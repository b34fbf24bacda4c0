"""`drx-bridge map`: what would become of a body, without sending it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from bridge.commands.outcome import Mapper, masker_of, show
from bridge.commands.scheme_options import check_id, configured_source, pairs
from bridge.errors import ConfigError
from bridge.ingress.profiles.lookup import load_profile, open_profiles
from bridge.ingress.profiles.preview import ENVIRONMENTS
from bridge.ingress.profiles.profile import Profile
from bridge.kafka.routing import RoutingTable
from bridge.runtime.audit import audit_options, audited
from bridge.settings import load_settings

DEFAULT_PROFILE = "drx_standard"


@click.command("map")
@click.option("--source", "source_name", help="Configured source: its profile, options and environment.")
@click.option("--profile", "profile_name", help=f"Profile, without a source; default: {DEFAULT_PROFILE}.")
@click.option("--option", "options", multiple=True, help="Option of that profile, NAME=VALUE.")
@click.option(
    "--environment",
    type=click.Choice(ENVIRONMENTS),
    help="Environment, without a source; default: that of the body.",
)
@click.option("--id", "webhook_id", default="", help="Id of the delivery; default: that of the body, else its hash.")
@click.option("--show-phi", is_flag=True, help="Show health information instead of masking it.")
@audit_options
@click.option("--json", "as_json", is_flag=True, help="One JSON line per body.")
@click.argument("bodies", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="BODY_FILE...")
def map_body(
    *,
    source_name: str | None,
    profile_name: str | None,
    options: Sequence[str],
    environment: str | None,
    webhook_id: str,
    show_phi: bool,
    actor: str,
    reason: str,
    as_json: bool,
    bodies: tuple[Path, ...],
) -> int:
    """Show what would become of the body in each BODY_FILE; exit 1 if one would be parked or refused.

    That is its events with topic, key, partition and flags, or why it would be parked, with the path of the field.
    Nothing is sent, and no proof is checked (see `verify`). Health information is masked unless --show-phi asks for it,
    which writes an audit line.
    """
    if webhook_id:
        check_id(webhook_id)
    settings = load_settings()
    if source_name is not None:
        if profile_name or options or environment:
            msg = "--source has a profile; leave --profile, --option and --environment out"
            raise click.UsageError(msg)
        environment = configured_source(settings, source_name).environment
        profile = open_profiles(settings.sources)[source_name]
    else:
        profile = _profile(profile_name or DEFAULT_PROFILE, options)
    mapper = Mapper(
        profile,
        source=source_name or "source",
        environment=environment or "",
        routing=RoutingTable(settings.kafka.routes),
        partitions=settings.kafka.partitions,
        body_max_bytes=settings.http.body_max_bytes,
        masker=None if show_phi else masker_of(as_json=as_json),
    )
    with audited("map", actor=actor, reason=reason, dry_run=not show_phi, show_phi=True, bodies=len(bodies)):
        return int(not show(mapper, bodies, webhook_id=webhook_id, as_json=as_json))


def _profile(name: str, options: Sequence[str]) -> Profile:
    """Build a profile that no source has; its options are those of the command line."""
    given = dict(pairs(options, "=", usage="--option is NAME=VALUE"))
    try:
        return load_profile(name, given)
    except ConfigError as exc:
        msg = str(exc) if str(exc).startswith("options.") else f"--profile: {exc}"
        raise ConfigError(msg) from None
