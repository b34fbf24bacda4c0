"""`drx-bridge sign`: print the headers that sign a body, as a reference for authors of senders."""

import json
import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import click
import orjson

from bridge.commands.scheme_options import asked_scheme, check_id, is_id, refusal_of, scheme_options
from bridge.errors import ConfigError
from bridge.proof.scheme import Raw, Scheme
from bridge.proof.secrets import parse_slot
from bridge.sender.sender import content_type_of
from bridge.sender.signing import read_signer


@click.command()
@scheme_options
@click.option("--secret-file", type=click.Path(path_type=Path), help="File with the secret on its first line.")
@click.option("--slot", default="current", show_default=True, help="Slot of the source, if --secret-file is not given.")
@click.option("--id", "webhook_id", help="Id of the delivery; default: that of the body, else a random one.")
@click.option("--timestamp", type=click.IntRange(0), help="Unix seconds of the attempt; default: now.")
@click.option("--curl", "url", metavar="URL", help="Print a curl command that posts to this URL instead.")
@click.option("--json", "as_json", is_flag=True, help="The headers as one JSON document.")
@click.argument("body_file", type=click.File("rb"))
def sign(
    *,
    source_name: str | None,
    scheme_text: str | None,
    parameters: Sequence[str],
    secret_file: Path | None,
    slot: str,
    webhook_id: str | None,
    timestamp: int | None,
    url: str | None,
    as_json: bool,
    body_file: BinaryIO,
) -> int:
    """Print the headers that sign the exact body in BODY_FILE; nothing is sent.

    If the scheme sends the secret itself, as tokens are, the headers contain it in clear text.
    """
    asked = asked_scheme(source_name, scheme_text, parameters)
    file = secret_file or (asked.secrets_dir / slot if asked.secrets_dir else None)
    if file is None:
        raise click.UsageError("give a --source, or a --secret-file")
    body = body_file.read()
    named = webhook_id or id_of(body) or f"msg_{secrets.token_hex(16)}"
    check_id(named)
    at = int(time.time()) if timestamp is None else timestamp
    headers = {"content-type": content_type_of(body_file.name), **read_signer(asked.scheme, file)(named, at, body)}
    if code := _refusal(asked.scheme, file, headers, body=body, at=at):
        click.echo(f"warning: the bridge refuses this: {code}", err=True)
    if as_json:
        click.echo(orjson.dumps(headers))
    elif url is not None:
        given = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
        file_name = "-" if body_file.name == "<stdin>" else body_file.name
        click.echo(shlex.join(["curl", "-sS", url, *given, "--data-binary", f"@{file_name}"]))
    else:
        click.echo("\n".join(f"{name}: {value}" for name, value in headers.items()))
    return 0


def _refusal(scheme: Scheme, file: Path, headers: Mapping[str, str], *, body: bytes, at: int) -> str:
    """Return the code with which the bridge would refuse the signed delivery now; empty if it would not."""
    raw = Raw({name.encode(): value.encode() for name, value in headers.items()}, body)
    try:
        return refusal_of(scheme, raw, [parse_slot(file, file.read_bytes(), scheme)], at)
    except (ConfigError, OSError):  # the sender's secret is not necessarily a valid slot file
        return ""


def id_of(body: bytes) -> str:
    """Return the id in a body if it is a valid delivery id; else empty."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    found = document.get("id") if isinstance(document, dict) else None
    return found if isinstance(found, str) and is_id(found) else ""
