"""`drx-bridge verify`: would this delivery be accepted, and if not why; for senders and for signature vectors."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click

from bridge.errors import DeliveryRefusedError
from bridge.ingress.proof import Raw
from bridge.ingress.schemes.standard_webhooks import StandardWebhooks
from bridge.ingress.secrets import load
from bridge.settings import Source

ACCEPTED = "verified"
REFUSED_EXIT = 1
TOLERANCE_S: int | None = Source.model_fields["tolerance_s"].default


@click.command()
@click.option(
    "--secrets-dir",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory with one file per slot.",
)
@click.option("--id", "webhook_id", required=True, help="Value of webhook-id, verbatim.")
@click.option("--timestamp", required=True, help="Value of webhook-timestamp, verbatim.")
@click.option("--signature", required=True, help="Value of webhook-signature, verbatim.")
@click.option("--now", type=int, help="Unix seconds to use as the current time.")
@click.option("--json", "as_json", is_flag=True, help="Only the JSON document, no sentence on standard error.")
@click.argument("body_file", type=click.Path(path_type=Path))
def verify(
    *,
    secrets_dir: Path,
    webhook_id: str,
    timestamp: str,
    signature: str,
    now: int | None,
    as_json: bool,
    body_file: Path,
) -> int:
    """Check the signature of the delivery whose exact body is in BODY_FILE; exit 1 if it would be refused."""
    # Bytes as the shell gave them, whatever their encoding.
    values = {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    heads = {name.encode(): os.fsencode(value) for name, value in values.items()}
    scheme = StandardWebhooks(TOLERANCE_S)
    keys = load(secrets_dir, scheme)
    try:
        body = body_file.read_bytes()
    except OSError:
        raise click.FileError(str(body_file), "cannot be read") from None
    try:
        proof = scheme.prove(Raw(heads, body), keys, time.time() if now is None else now)
    except DeliveryRefusedError as exc:
        return _tell(exc.code, f"refused: {exc.code}", accept=False, as_json=as_json)
    return _tell(ACCEPTED, f"accepted: signed with the key in slot {proof.slot}", accept=True, as_json=as_json)


def _tell(code: str, sentence: str, *, accept: bool, as_json: bool) -> int:
    click.echo(json.dumps({"accept": accept, "code": code}))
    if not as_json:
        click.echo(sentence, err=True)
    return 0 if accept else REFUSED_EXIT
