"""What the doctor looks at: each check gives findings, one line each, with what to do about a bad one."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

from bridge.errors import BridgeError, ConfigError
from bridge.ingress.proof import HmacKey, KeySlot, PublicKey, ReplayKey, SharedSecret
from bridge.ingress.secrets import load, senders
from bridge.kafka.routing import RoutingTable
from bridge.registry.loader import bundled
from bridge.runtime.findings import Finding
from bridge.settings import Registry, Settings
from bridge.sources import scheme_of

# Time to issue a new secret, hand it to the sender and see it used, with a weekend in between.
EXPIRES_SOON_S = 14 * 86_400


def check_windows(settings: Settings, *, now: datetime) -> Iterator[Finding]:
    """Say of each source's secrets when they count; a start takes a source of which none does."""
    at = now.timestamp()
    for name, source in settings.sources.items():
        try:
            scheme = scheme_of(name, source)
            slots = load(source.secrets_dir, scheme) if scheme.keyed and source.secrets_dir else ()
        except ConfigError:  # found by the start's own checks
            continue
        if not slots:
            continue
        listed = "; ".join(_slot_words(slot, now=at) for slot in slots)
        active = [slot.accept_until for slot in senders(slots) if slot.counts_at(at)]
        if not active:
            advice = f"add a file with a secret to {source.secrets_dir}"
            yield Finding(f"secrets {name}", "failed", f"none counts now: {listed}", advice)
        elif max(active) < at + EXPIRES_SOON_S:
            text = f"the last one ends soon: {listed}"
            yield Finding(f"secrets {name}", "warning", text, "agree on a new secret with the sender")
        else:
            yield Finding(f"secrets {name}", "ok", listed)


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
        case ReplayKey():
            return "replay"
        case _:
            return "combined"


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%MZ")


async def check_registry(registry: Registry, *, routes: RoutingTable) -> AsyncIterator[Finding]:
    """Compare the registry's ids with our schemas; without a URL, see that the bundled lock can be read."""
    # With aiohttp 0.1 s of every command that looks at a source.
    from bridge.registry.client import RegistryUnavailableError, open_client, read_credentials  # noqa: PLC0415
    from bridge.registry.ids import IdsMissingError, newest, resolve_ids, wanted, wrong_ids  # noqa: PLC0415

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
    needed = wanted(newest(lock), routes.topics_of)
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
            text = f"{len(wrong)} ids mean something else there, such as that of {wrong[0]}"
            yield Finding(
                "registry", "failed", text, "delete BRIDGE_REGISTRY__IDS_FILE and run `drx-bridge schemas push`"
            )
        else:
            yield Finding("registry", "ok", f"{client.url} holds all {len(ids)} schemas under the ids in use")
