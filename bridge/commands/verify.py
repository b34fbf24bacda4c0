"""`drx-bridge verify`: would this delivery be accepted, and if not why; for senders and for signature vectors."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from bridge.errors import ConfigError, DeliveryRefusedError
from bridge.ingress.headers import head_rules, read_heads
from bridge.ingress.proof import KeySlot, Raw, Scheme
from bridge.ingress.schemes.parameters import ParameterError
from bridge.ingress.schemes.presets import configure
from bridge.ingress.secrets import load
from bridge.settings import Source, load_settings
from bridge.sources import scheme_of

ACCEPTED = "verified"
REFUSED_EXIT = 1
TOLERANCE_S: int | None = Source.model_fields["tolerance_s"].default
DEFAULT_SCHEME: str = Source.model_fields["scheme"].default


@click.command()
@click.option("--source", "source_name", help="Configured source: its scheme, tolerance and secrets.")
@click.option("--scheme", "scheme_text", help=f"Scheme, where no source is given; {DEFAULT_SCHEME} unless said.")
@click.option("--parameter", "parameters", multiple=True, help="Parameter of that scheme, NAME=VALUE.")
@click.option("--secrets-dir", type=click.Path(path_type=Path), help="Directory with one file per slot.")
@click.option("--header", "headers", multiple=True, help="Header as sent, 'name: value'; as often as needed.")
@click.option("--query", default="", help="What follows `?` in the URL.")
@click.option("--peer", default="", help="Address that it comes from.")
@click.option("--id", "webhook_id", help="Value of webhook-id, verbatim.")
@click.option("--timestamp", help="Value of webhook-timestamp, verbatim.")
@click.option("--signature", help="Value of webhook-signature, verbatim.")
@click.option("--now", type=int, help="Unix seconds to take for the present.")
@click.option("--json", "as_json", is_flag=True, help="Leave the sentence for people out.")
@click.argument("body_file", type=click.Path(path_type=Path))
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
    body_file: Path,
) -> int:
    """Check the proof of the delivery whose exact body is in BODY_FILE; exit 1 if it would be refused."""
    scheme, keys = _wanted(source_name, scheme_text, parameters, secrets_dir)
    short = {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    sent = [*_split(headers), *((name, value) for name, value in short.items() if value is not None)]
    try:
        body = body_file.read_bytes()
    except OSError:
        raise click.FileError(str(body_file), "cannot be read") from None
    try:
        # Bytes as the shell gave them, whatever their encoding.
        given = [(name.encode(), os.fsencode(value)) for name, value in sent]
        heads = read_heads(given, head_rules([scheme]))
        proof = scheme.prove(Raw(heads, body, os.fsencode(query), peer), keys, time.time() if now is None else now)
    except DeliveryRefusedError as exc:
        return _tell(exc.code, f"refused: {exc.code}", accept=False, as_json=as_json)
    return _tell(ACCEPTED, f"accepted: signed with the key in slot {proof.slot}", accept=True, as_json=as_json)


def _wanted(
    source_name: str | None, scheme_text: str | None, parameters: Sequence[str], secrets_dir: Path | None
) -> tuple[Scheme, Sequence[KeySlot]]:
    if source_name is not None:
        if scheme_text or parameters:
            msg = "--source has a scheme; leave --scheme and --parameter out"
            raise click.UsageError(msg)
        sources = load_settings().sources
        if source_name not in sources:
            msg = f"no source is named {source_name!r}; known: {', '.join(sources) or 'none'}"
            raise ConfigError(msg)
        source = sources[source_name]
        scheme, directory = scheme_of(source_name, source), secrets_dir or source.secrets_dir
    else:
        try:
            scheme = configure(scheme_text or DEFAULT_SCHEME, dict(_named(parameters)), tolerance_s=TOLERANCE_S)
        except ParameterError as exc:
            msg = f"{exc.parameter}: {exc.says}"
            raise ConfigError(msg) from None
        directory = secrets_dir
    if not scheme.keyed:
        return scheme, ()
    if directory is None:
        msg = "name a --source, or a --secrets-dir"
        raise click.UsageError(msg)
    return scheme, load(directory, scheme)


def _named(parameters: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name, value in _pairs(parameters, "=", usage="--parameter is NAME=VALUE"):
        yield name.lower().removeprefix("scheme_"), value


def _split(headers: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name, value in _pairs(headers, ":", usage="--header is 'name: value'"):
        yield name.strip().lower(), value.strip(" \t")


def _pairs(texts: Sequence[str], separator: str, *, usage: str) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, found, value = text.partition(separator)
        if not found:
            raise click.UsageError(usage)
        yield name, value


def _tell(code: str, sentence: str, *, accept: bool, as_json: bool) -> int:
    click.echo(json.dumps({"accept": accept, "code": code}))
    if not as_json:
        click.echo(sentence, err=True)
    return 0 if accept else REFUSED_EXIT
