"""What the doctor looks at: each check gives findings, one line each, with what to do about a bad one."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bridge.errors import BridgeError, ConfigError
from bridge.ingress.profiles.lookup import load_profile, open_profiles
from bridge.ingress.profiles.profile import bucket_s, dedupe_window_s
from bridge.ingress.proof import HmacKey, KeySlot, PublicKey, SharedSecret
from bridge.ingress.secrets import load
from bridge.kafka.routing import RoutingTable
from bridge.registry.client import RegistryUnavailableError, open_client, read_credentials
from bridge.registry.ids import IdsMissingError, newest, resolve_ids, wanted, wrong_ids
from bridge.registry.loader import bundled
from bridge.runtime.findings import Finding
from bridge.settings import Registry, Settings, Source, refused
from bridge.sources import scheme_of, unaccepted_shared_keys, weaknesses_of

# Time to issue a new secret, hand it to the sender and see it used, with a weekend in between.
EXPIRES_SOON_S = 14 * 86_400
# Room for logs, and for a registry's ids when they are written anew; less is a disk about to be full.
FREE_MIN_BYTES = 500_000_000


def check_risks(settings: Settings) -> Iterator[Finding]:
    """Say of each risk whether the safety profile refuses it, it is accepted, or only production would refuse it."""
    stops = refused(settings.profile, settings.risks, settings.accept)
    for risk in settings.risks:
        says = f"{settings.profile}: {risk.name}: {risk.says}"
        if risk in stops:
            yield Finding("profile", "failed", says, f"{risk.advice}, or accept it in BRIDGE_ACCEPT__RISKS")
        elif settings.profile == "production":
            yield Finding("profile", "warning", f"{says}; accepted", risk.advice)
        else:
            yield Finding("profile", "ok", f"{says}; production would refuse it")
    if not settings.risks:
        yield Finding("profile", "ok", f"{settings.profile}: nothing that production refuses")


def check_sources(settings: Settings, *, now: datetime) -> Iterator[Finding]:
    """Look at the profile and the secrets of each source."""
    if not settings.sources:
        says = "no source is configured: every delivery will be refused"
        yield Finding("sources", "failed", says, "set BRIDGE_SOURCES__<name>__PROFILE, …__ENVIRONMENT, …__SECRETS_DIR")
    for name, source in settings.sources.items():
        yield from _check_source(name, source, tls_in_front=settings.http.tls_in_front)
        if source.secrets_dir is not None:
            yield from _check_secrets(name, source, source.secrets_dir, now=now.timestamp())
    yield from _check_prefixes(settings)
    yield from _check_shared_keys(settings)


def _check_source(name: str, source: Source, *, tls_in_front: bool) -> Iterator[Finding]:
    check = f"source {name}"
    try:
        profile = load_profile(source.profile, source.options)
        scheme = scheme_of(name, source)
    except ConfigError as exc:
        yield Finding(check, "failed", str(exc), "change this setting of the source")
        return
    says = f"profile {source.profile}, {source.environment}, {scheme.describe()}"
    yield Finding(check, "ok", says)
    window_s = source.dedupe_window_s or dedupe_window_s(profile)
    try:
        for weak in weaknesses_of(
            name, source, scheme, window_s=window_s, bucket_s=bucket_s(profile), tls_in_front=tls_in_front
        ):
            advice = f"{weak.advice}, or accept it: BRIDGE_SOURCES__{name.upper()}__ACCEPT_WEAK={weak.name}"
            yield Finding(check, "failed", weak.says, advice)
    except ConfigError as exc:
        yield Finding(check, "failed", str(exc), "change this setting of the source")


def _check_prefixes(settings: Settings) -> Iterator[Finding]:
    try:
        for source in settings.sources.values():
            load_profile(source.profile, source.options)
    except ConfigError:  # has been said
        return
    try:
        open_profiles(settings.sources)
    except ConfigError as exc:
        yield Finding("sources", "failed", str(exc), "change this setting of the source")


def _check_shared_keys(settings: Settings) -> Iterator[Finding]:
    keys = {}
    for name, source in settings.sources.items():
        with contextlib.suppress(ConfigError):  # what is wrong with it has been said
            if source.secrets_dir is not None:
                keys[name] = load(source.secrets_dir, scheme_of(name, source))
    for owner, other in unaccepted_shared_keys(settings, keys):
        yield Finding(f"secrets {other}", "failed", f"has a key that {owner} has too", "give each source its own")


def _check_secrets(name: str, source: Source, path: Path, *, now: float) -> Iterator[Finding]:
    check = f"secrets {name}"
    try:
        scheme = scheme_of(name, source)
        if not scheme.keyed:  # the start does not look there
            return
        slots = load(path, scheme)
    except ConfigError as exc:
        yield Finding(
            check, "failed", str(exc), f"mend it, or point BRIDGE_SOURCES__{name.upper()}__SECRETS_DIR at one"
        )
        return
    listed = "; ".join(_slot_words(slot, now=now) for slot in slots)
    active = [slot.accept_until for slot in slots if slot.not_before <= now <= slot.accept_until]
    if not active:
        yield Finding(check, "failed", f"none counts now: {listed}", f"add a file with a secret to {path}")
    elif max(active) < now + EXPIRES_SOON_S:
        yield Finding(check, "warning", f"the last one ends soon: {listed}", "agree on a new secret with the sender")
    else:
        yield Finding(check, "ok", listed)


def _slot_words(slot: KeySlot, *, now: float) -> str:
    kind = slot_kind(slot)
    if slot.not_before > now:
        return f"{slot.name} ({kind}, from {_day(slot.not_before)})"
    if slot.accept_until < now:
        return f"{slot.name} ({kind}, ended {_day(slot.accept_until)})"
    return f"{slot.name} ({kind}, {'no end' if math.isinf(slot.accept_until) else f'until {_day(slot.accept_until)}'})"


def slot_kind(slot: KeySlot) -> str:
    """Name the kind of a key in one word."""
    match slot.key:
        case HmacKey():
            return "hmac"
        case PublicKey():
            return "ed25519"
        case SharedSecret():
            return "shared"
        case _:
            return "combined"


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%MZ")


async def check_registry(registry: Registry, *, routes: RoutingTable) -> AsyncIterator[Finding]:
    """Compare the registry's ids with our schemas; without a URL, see that the bundled lock can be read."""
    try:
        lock = bundled()
    except ConfigError as exc:
        yield Finding("registry", "failed", str(exc), "install the package again")
        return
    if registry.url is None:
        yield Finding(
            "registry", "ok", f"none configured; {len(lock.latest())} schemas with the ids of the bundled lock"
        )
        return
    needed = wanted(newest(lock), routes.topic)
    try:
        credentials = read_credentials(registry.username_file, registry.password_file)
        async with open_client(registry.url, credentials=credentials) as client:
            ids = await resolve_ids(needed, registry=client, path=registry.ids_file)
            wrong = await wrong_ids(needed, ids, registry=client)
    except IdsMissingError as exc:
        yield Finding("registry", "failed", str(exc), "run `drx-bridge schemas push`")
    except RegistryUnavailableError as exc:
        known = "the ids of an earlier start still serve" if registry.ids_file else "a first start would not be ready"
        yield Finding("registry", "failed", f"{exc}; {known}", "check BRIDGE_REGISTRY__URL and the way to it")
    except BridgeError as exc:
        yield Finding("registry", "failed", str(exc), "check BRIDGE_REGISTRY__URL and its credentials")
    else:
        if wrong:
            says = f"{len(wrong)} ids mean something else there, such as that of {wrong[0]}"
            yield Finding(
                "registry", "failed", says, "delete BRIDGE_REGISTRY__IDS_FILE and run `drx-bridge schemas push`"
            )
        else:
            yield Finding("registry", "ok", f"{client.url} holds all {len(ids)} schemas under the ids in use")


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Look at the file systems that the ingress writes to."""
    ids_file = settings.registry.ids_file
    places = [Path.cwd()] if ids_file is None else [Path.cwd(), ids_file.parent]
    for place in dict.fromkeys(places):
        try:
            free_bytes = shutil.disk_usage(place).free
        except OSError as exc:
            yield Finding("disk", "failed", f"{place}: {exc.strerror}", "make the directory, or set another one")
            continue
        says = f"{free_bytes / 1e9:,.1f} GB free at {place}"
        if free_bytes < FREE_MIN_BYTES:
            yield Finding("disk", "failed", says, "free some space")
        elif place != Path.cwd() and not os.access(place, os.W_OK):
            yield Finding("disk", "failed", f"{place} cannot be written to", "let the bridge's user write there")
        else:
            yield Finding("disk", "ok", says)
