"""Start checks of the ingress: `serve` stops at the first failure, `config` and `doctor` print all findings."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial

from bridge.contract.events import EVENT_MODELS
from bridge.errors import ConfigError
from bridge.kafka.routing import RoutingTable, longest_first
from bridge.mapping.lookup import open_profiles
from bridge.mapping.profile import Profile, bucket_s, dedupe_window_s
from bridge.process_checks import check_process
from bridge.proof.key_sets import FILE as KEY_SET
from bridge.proof.scheme import KeySlot, Scheme
from bridge.proof.schemes.lint import guessable, weaknesses
from bridge.proof.secrets import load
from bridge.registry.address import plain_url
from bridge.runtime.configuration import place_of
from bridge.runtime.findings import Finding, Risk, failures
from bridge.settings import PREFIX, HttpSettings, Registry, Settings, SourceSettings, SpoolSettings, named
from bridge.sources import address_limit, challenge_of, place, scheme_of, shared_key_pairs, slots_dir
from bridge.spool.keys import CURRENT


def check_start(settings: Settings) -> Iterator[Finding]:
    """Yield findings about settings and files; no connection or port is opened."""
    yield from check_process(
        settings.kafka, settings.log, settings.accept, prefix=PREFIX, further=_key_risk(settings.spool)
    )
    yield from _check_address_limit(settings.http)
    yield from _check_routes(settings.kafka.routes)
    yield from _check_registry(settings.registry)
    yield from check_sources(settings)


def check_sources(settings: Settings) -> Iterator[Finding]:
    """Check profile, scheme and secrets of each source."""
    if not settings.sources:
        advice = "set BRIDGE_SOURCES__<NAME>__PROFILE, __ENVIRONMENT and __SECRETS_DIR"
        yield Finding("sources", "failed", "no source is configured: every delivery would be refused", advice)
    profiles: dict[str, Profile] = {}
    keys: dict[str, Sequence[KeySlot]] = {}
    for name, source in settings.sources.items():
        try:
            profiles |= open_profiles({name: source})
            scheme = scheme_of(name, source)
            challenge = challenge_of(name, source, scheme)
        except ConfigError as exc:
            yield Finding(f"source {name}", "failed", str(exc))
            continue
        handshake = f", handshake {source.challenge}" if challenge else ""
        text = f"profile {source.profile}, {source.environment}, {scheme.describe()}{handshake}"
        yield Finding(f"source {name}", "ok", text)
        tls_in_front = settings.http.tls_in_front
        yield from check_proof(name, source, scheme, profiles[name], tls_in_front=tls_in_front)
        directory = slots_dir(scheme, source)
        if directory and scheme.jwks_url and not (directory / KEY_SET).exists():
            yield Finding(f"secrets {name}", "ok", f"the bridge reads its keys at startup from {scheme.jwks_url}")
        elif directory is not None:
            try:
                keys[name] = load(directory, scheme)
            except ConfigError as exc:
                advice = f"correct it, or point {place(name, 'secrets_dir')} at another directory"
                yield Finding(f"secrets {name}", "failed", str(exc), advice)
    yield from check_keys(settings, keys)
    if len(profiles) == len(settings.sources):
        yield from failures("sources", partial(open_profiles, settings.sources))


def check_proof(
    name: str, source: SourceSettings, scheme: Scheme, profile: Profile, *, tls_in_front: bool
) -> Iterator[Finding]:
    """Check for ids that are forgotten too early, and for weaknesses against forgery and replay."""
    window_s = source.dedupe_window_s or dedupe_window_s(profile)
    # A captured delivery must be stale before its id is forgotten, whichever of the two clocks is ahead.
    least_s = 2 * source.tolerance_s if scheme.dated and source.tolerance_s else 0
    if window_s < least_s:
        text = f"{place(name, 'dedupe_window_s')}: {window_s} s are less than {least_s}, but a repeat may still arrive"
        yield Finding(f"source {name}", "failed", text, f"set {least_s} or more, or a smaller tolerance_s")
    for risk in weaknesses(
        scheme, tolerance_s=source.tolerance_s, window_s=window_s, tls_in_front=tls_in_front, bucket_s=bucket_s(profile)
    ):
        yield risk.judged(
            f"source {name}", accepted=named(source.accept), where=place(name, "accept"), setting=place(name, "scheme")
        )


def check_keys(settings: Settings, keys: Mapping[str, Sequence[KeySlot]]) -> Iterator[Finding]:
    """Check the current keys for guessable ones, and for keys shared by sources."""
    for name, slots in keys.items():
        for text in guessable(slots):
            advice = "agree on another one with the sender; `drx-bridge secrets new` creates secrets"
            yield Finding(f"secrets {name}", "failed", f"{settings.sources[name].secrets_dir}/{text}", advice)
    for owner, other in shared_key_pairs(settings, keys):
        text = f"{place(other, 'secrets_dir')}: has a key that {owner} also has"
        advice = "give each source its own, or accept it in both: accept=shared_key"
        yield Finding(f"secrets {other}", "failed", text, advice)


def _check_address_limit(http: HttpSettings) -> Iterator[Finding]:
    yield from failures("http", partial(address_limit, http))
    if http.address_rate_per_s is not None and http.tls_in_front and not http.trusted_proxies:
        text = f"{place_of(Settings, 'http', 'address_rate_per_s')}: behind a proxy, all clients have its address"
        yield Finding("http", "failed", text, "list its networks in http.trusted_proxies")


def _check_routes(routes: Mapping[str, str]) -> Iterator[Finding]:
    yield from failures("routes", partial(RoutingTable, routes))
    patterns = [pattern for pattern, _ in longest_first(routes)]
    used = {next((each for each in patterns if fnmatchcase(kind, each)), None) for kind in EVENT_MODELS}
    for pattern in routes.keys() - used:
        text = f"kafka.routes: no event type matches {pattern!r}, or longer patterns match all of them"
        yield Finding("routes", "failed", text, "docs/events.md lists the types")


def _check_registry(registry: Registry) -> Iterator[Finding]:
    if registry.url or registry.username_file or registry.password_file:
        yield from failures("registry", registry.credentials)
        if registry.url:
            yield from failures("registry", partial(plain_url, registry.url))


def _key_risk(spool: SpoolSettings) -> Iterator[Risk]:
    if spool.enabled and (spool.key_dir is None or not (spool.key_dir / CURRENT).is_file()):
        where = "next to the data it encrypts" if spool.key_dir is None else f"in {spool.key_dir}, which has none"
        advice = f"create one, back it up, and set {PREFIX}SPOOL__KEY_DIR to its directory"
        yield Risk("generated_spool_key", f"the first start would create the spool's key {where}", advice)
