"""`drx-bridge verify`: check whether a delivery would be accepted, for senders and for signature vectors."""

import json
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click

from bridge.commands.scheme_options import AskedScheme, asked_scheme, scheme_options
from bridge.errors import DeliveryRefusedError
from bridge.ingress.headers import header_rules, read_headers
from bridge.proof.scheme import KeySlot, Raw
from bridge.proof.secrets import load
from bridge.response_codes import REFUSED
from bridge.runtime.process import pairs

ACCEPTED = "verified"


@click.command()
@scheme_options
@click.option("--secrets-dir", type=click.Path(path_type=Path), help="Directory with one file per slot.")
@click.option("--header", "headers", multiple=True, help="Header as sent, 'name: value'. Repeatable.")
@click.option("--query", default="", help="Query string of the URL.")
@click.option("--peer", default="", help="Address that it comes from.")
@click.option("--id", "webhook_id", help="Value of webhook-id, verbatim.")
@click.option("--timestamp", help="Value of webhook-timestamp, verbatim.")
@click.option("--signature", help="Value of webhook-signature, verbatim.")
@click.option("--now", type=int, help="Unix seconds to use as the current time.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of sentences.")
@click.argument("body_file", type=click.File("rb"))
def verify(
    *,
    source_name: str | None,
    scheme_text: str | None,
    parameters: Sequence[str],
    secrets_dir: Path | None,
    headers: Sequence[str],
    query: str,
    peer: str,
    webhook_id: str | None,
    timestamp: str | None,
    signature: str | None,
    now: int | None,
    as_json: bool,
    body_file: BinaryIO,
) -> int:
    """Check the signature of the delivery whose exact body is in BODY_FILE; exit 1 if it would be refused.

    If it is refused, common mistakes of senders are tried, and a hint names the one that explains it.
    """
    asked = asked_scheme(source_name, scheme_text, parameters)
    scheme, keys = asked.scheme, _keys(asked, secrets_dir)
    short = {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    named = pairs(headers, ":", usage="--header is 'name: value'")
    sent = [(name.strip().lower(), value.strip(" \t")) for name, value in named]
    sent += [(name, value) for name, value in short.items() if value is not None]
    body = body_file.read()
    # The bytes that the shell passed, in any encoding.
    given = [(os.fsencode(name), os.fsencode(value)) for name, value in sent]
    at = time.time() if now is None else now
    raw = None
    try:
        raw = Raw(read_headers(given, header_rules([scheme])), body, os.fsencode(query), peer)
        proof = scheme.verify(raw, keys, at)
    except DeliveryRefusedError as exc:
        # Imported here, since an accepted delivery needs no hint.
        from bridge.commands.hints import hint, nearest  # noqa: PLC0415

        found = ""
        if raw is not None and not as_json:
            whole = raw._replace(headers=dict(given))
            found = hint(scheme, raw, keys, at) or nearest(asked, whole, partial(_keys, secrets_dir=secrets_dir), at)
        sentence = f"refused: {exc.code}: {REFUSED[exc.code].meaning}"
        return _tell(exc.code, sentence, found, accept=False, as_json=as_json)
    return _tell(ACCEPTED, f"accepted: signed with the key in slot {proof.slot}", accept=True, as_json=as_json)


def _keys(asked: AskedScheme, secrets_dir: Path | None) -> Sequence[KeySlot]:
    if not asked.scheme.keyed:
        return ()
    directory = secrets_dir or asked.secrets_dir
    if directory is None:
        raise click.UsageError("give a --source, or a --secrets-dir")
    return load(directory, asked.scheme)


def _tell(code: str, sentence: str, hint: str = "", *, accept: bool, as_json: bool) -> int:
    click.echo(json.dumps({"accept": accept, "code": code}))
    if not as_json:
        click.echo(f"{sentence}\n  → {hint}" if hint else sentence, err=True)
    return int(not accept)
