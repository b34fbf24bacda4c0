"""`drx-bridge secrets`: create, list and check the secrets of sources; no command ever shows one."""

import base64
import math
import os
import secrets as random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import orjson
from rich.console import Console

from bridge.errors import ConfigError
from bridge.proof.origin import SLOT
from bridge.proof.scheme import HmacKey, KeySet, KeySlot, PublicKey, ReplayKey, Scheme, SharedSecret
from bridge.proof.schemes.body_hmac import BodyHmac
from bridge.proof.schemes.combined import Combined
from bridge.proof.schemes.public_key import Ed25519
from bridge.proof.schemes.shared_secret import Basic
from bridge.proof.schemes.standard_webhooks import StandardWebhooks
from bridge.proof.secrets import load, parse_slot, senders
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.files import replace_file
from bridge.runtime.findings import Finding, finding_line
from bridge.runtime.process import FloatRange, Group
from bridge.runtime.screen import print_rows
from bridge.settings import Settings, load_settings
from bridge.sources import configured_source, scheme_of, slots_dir
from bridge.start_checks import check_sources

KEY_BYTES = 32  # as long as a SHA-256 digest
# Enough time to create a secret, hand it to the sender and see it used, over a weekend.
EXPIRES_SOON_S = 14 * 86_400
_KINDS = {HmacKey: "hmac", KeySet: "public", PublicKey: "ed25519", SharedSecret: "shared", ReplayKey: "replay"}
CURRENT, PREVIOUS = "current", "previous"


@click.group(cls=Group)
def secrets() -> None:
    """Create, list or check the secrets of sources; none is ever shown."""


@secrets.command()
@click.argument("source")
@click.option("--slot", default=CURRENT, show_default=True, help="Slot to write; one that exists is not overwritten.")
@click.option("--rotate-h", type=FloatRange(0, 24 * 366), help="Hours for which `current` is kept as `previous`.")
@click.option("--user", help="User of HTTP Basic; default: the name of the source.")
@click.option("--not-before", help="When it becomes valid, such as 2026-01-31T00:00:00Z.")
@click.option("--accept-until", help="When it ends.")
@audit_options
def new(  # noqa: PLR0917 - click passes by keyword
    source: str,
    slot: str,
    rotate_h: float | None,
    user: str | None,
    not_before: str | None,
    accept_until: str | None,
    actor: str,
    reason: str,
) -> int:
    """Create a secret for SOURCE and write its slot file; a running bridge loads it within seconds."""
    scheme, directory = _configured(load_settings(), source, slot)
    window = {"not_before": not_before, "accept_until": accept_until}
    lines = [
        *_fresh(StandardWebhooks() if slot == SLOT else scheme, user or source),
        *(f"{name} = {text}" for name, text in window.items() if text),
    ]
    where = directory / slot
    content = os.fsencode("\n".join([*lines, ""]))
    if where.parent != directory:
        raise ConfigError(f"{directory}: {slot} is not a slot name (letters, digits, `.`, `_`, `-`)")
    parse_slot(where, content, scheme)  # the bridge would also refuse such a file
    if rotate_h is not None and slot != CURRENT:
        raise click.UsageError("--rotate-h replaces `current`; omit --slot")
    with audited("secrets.new", actor=actor, reason=reason, source=source, slot=slot, rotate_h=rotate_h):
        if rotate_h is not None:
            _keep_as_previous(directory, scheme, rotate_h)
        _write(where, content, overwrite=rotate_h is not None)
    whom = "only those who post need its content" if slot == SLOT else "give its content to the sender"
    click.echo(f"{where}: written; {whom}, and to nobody else", err=True)
    return 0


@secrets.command(name="list")
@click.argument("source", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON line per slot.")
def list_(source: str | None, *, as_json: bool) -> int:
    """List the slots of SOURCE, or of all sources, and when each is valid."""
    settings = load_settings()
    now = time.time()
    rows: list[tuple[object, ...]] = []
    keyed = [name for name, each in settings.sources.items() if slots_dir(scheme_of(name, each), each)]
    for name in [source] if source else keyed:
        scheme, directory = _configured(settings, name)
        for slot in load(directory, scheme):
            row = {
                "source": name,
                "scheme": settings.sources[name].scheme,
                "slot": slot.name,
                "kind": _kind(slot),
                "counts": slot.counts_at(now),
                "not_before": _instant(slot.not_before),
                "accept_until": _instant(slot.accept_until),
            }
            if as_json:
                click.echo(orjson.dumps(row))
            rows.append(tuple("yes" if each is True else "no" if each is False else each for each in row.values()))
    if not as_json:
        print_rows(("source", "scheme", "slot", "kind", "counts", "from", "until"), rows)
    return 0


@secrets.command()
@click.argument("source", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON line per finding.")
def check(source: str | None, *, as_json: bool) -> int:
    """Check schemes and secrets of SOURCE, or of all sources; exit 1 if the bridge could not work with them."""
    settings = load_settings()
    if source:
        configured_source(settings, source)
    found = [*check_sources(settings), *check_windows(settings, now=datetime.now(UTC))]
    shown = [each for each in found if source is None or each.check.rpartition(" ")[2] == source]
    for each in shown:
        if as_json:
            click.echo(orjson.dumps(each.document))
        else:
            Console(soft_wrap=True).print(finding_line(each))
    return int(any(each.verdict == "failed" for each in shown))


def check_windows(settings: Settings, *, now: datetime) -> Iterator[Finding]:
    """Report when the secrets of each source are valid, and who can read them; `serve` starts in any case."""
    at = now.timestamp()
    for name, source in settings.sources.items():
        try:
            scheme = scheme_of(name, source)
            slots = load(source.secrets_dir, scheme) if scheme.keyed and source.secrets_dir else ()
        except ConfigError:  # reported by the start checks
            continue
        if not slots:
            continue
        listed = "; ".join(_slot_words(slot, now=at) for slot in slots)
        active = [slot.accept_until for slot in senders(slots) if slot.counts_at(at)]
        if not active:
            advice = f"add a file with a secret to {source.secrets_dir}"
            yield Finding(f"secrets {name}", "failed", f"none is valid now: {listed}", advice)
        elif max(active) < at + EXPIRES_SOON_S:
            text = f"the last one ends soon: {listed}"
            yield Finding(f"secrets {name}", "warning", text, "agree on a new secret with the sender")
        else:
            yield Finding(f"secrets {name}", "ok", listed)
        for file in sorted(each for each in Path(source.secrets_dir or "").iterdir() if not each.name.startswith(".")):
            if file.is_file() and file.stat().st_mode & 0o004:
                text = f"{file.name} can be read by every user"
                yield Finding(f"secrets {name}", "warning", text, f"chmod o= {file}")


def _slot_words(slot: KeySlot, *, now: float) -> str:
    since, until = _instant(slot.not_before), _instant(slot.accept_until)
    if slot.not_before > now:
        window = f"from {since}"
    elif slot.accept_until < now:
        window = f"ended {until}"
    else:
        window = f"until {until}" if until else "no end"
    return f"{slot.name} ({_kind(slot)}, {window})"


def _kind(slot: KeySlot) -> str:
    return _KINDS.get(type(slot.key), "combined")


def _configured(settings: Settings, name: str, slot: str = "") -> tuple[Scheme, Path]:
    source = configured_source(settings, name)
    scheme = scheme_of(name, source)
    directory = source.secrets_dir if slot == SLOT else slots_dir(scheme, source)
    if directory is None:
        raise ConfigError(f"source {name}: the scheme {source.scheme} has no secrets")
    return scheme, directory


def _fresh(scheme: Scheme, user: str) -> Iterator[str]:
    """Yield the lines of a new slot file: a secret for each keyed part of a combined scheme."""
    parts = [part for part in scheme.parts if part.keyed] if isinstance(scheme, Combined) else [scheme]
    for number, part in enumerate(parts):
        text = fresh_secret(part, user)
        yield text if number == 0 else f"{part.name} = {text}"


def fresh_secret(scheme: Scheme, user: str) -> str:
    """Create the first line of a slot file; `user` is the user name of HTTP Basic."""
    key = random.token_bytes(KEY_BYTES)
    match scheme:
        case StandardWebhooks():
            return "whsec_" + base64.b64encode(key).decode()
        case BodyHmac() if scheme.key_encoding == "hex":
            return key.hex()
        case BodyHmac() if scheme.key_encoding == "base64":
            return base64.b64encode(key).decode()
        case Basic():
            return f"{user}:{random.token_urlsafe(KEY_BYTES)}"
        case Ed25519():
            raise ConfigError("with ed25519 the sender creates the key pair; write its public key into a slot file")
        case _ if scheme.multiline:
            raise ConfigError("with jwt the issuer has the keys; write its JWKS document or public key to a slot file")
        case _:
            return random.token_urlsafe(KEY_BYTES)


def _keep_as_previous(directory: Path, scheme: Scheme, hours: float) -> None:
    """Copy the secret to `previous` before `current` is replaced, so that it stays valid throughout."""
    current = directory / CURRENT
    content = current.read_bytes()
    kept = [line for line in content.split(b"\n") if line.strip() and not line.strip().startswith(b"accept_until")]
    # Rotation must not extend a secret that ends earlier or has ended.
    ends_at = min(parse_slot(current, content, scheme).accept_until, time.time() + hours * 3600)
    until = _instant(ends_at)
    former = b"\n".join([*kept, f"accept_until = {until}".encode(), b""])
    previous = directory / PREVIOUS
    parse_slot(previous, former, scheme)
    if previous.exists():
        counts_until = parse_slot(previous, previous.read_bytes(), scheme).accept_until
        if counts_until > time.time():
            end = _instant(counts_until) or "it is removed"
            msg = f"{previous}: is valid until {end}, and the sender may still sign with it; rotate again after that"
            raise ConfigError(msg)
    _write(previous, former, overwrite=True)


def _write(where: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a file atomically, readable by its owner only."""
    try:
        where.parent.mkdir(mode=0o700, exist_ok=True)
        if not overwrite and where.exists():
            raise ConfigError(f"{where}: already exists; choose another --slot, or rotate with --rotate-h")
        replace_file(where, content)  # its temporary file is a dot file, which is not read as a slot
    except OSError as exc:
        above = where.parent.parent
        why = exc.strerror if above.exists() else f"create {above} first, or correct the setting"
        raise ConfigError(f"{where}: cannot be written ({why})") from None


def _instant(unix_s: float) -> str | None:
    return None if math.isinf(unix_s) else datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
