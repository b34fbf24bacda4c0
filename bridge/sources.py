"""What the settings of a source come to: how its deliveries prove their origin, and what is weak about that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from bridge.errors import ConfigError
from bridge.ingress.delivery_ids import BUCKETS_OF_REPEATS
from bridge.ingress.profiles.lookup import open_profiles
from bridge.ingress.profiles.profile import bucket_s, dedupe_window_s
from bridge.ingress.proof import KeySlot, Scheme, Secrets
from bridge.ingress.rate_limit import AddressLimit, RateLimit
from bridge.ingress.schemes.lint import NAMES, Weakness, shared_keys, weaknesses
from bridge.ingress.schemes.network import are_too_wide, networks
from bridge.ingress.schemes.parameters import ParameterError
from bridge.ingress.schemes.presets import PARAMETERS, configure
from bridge.ingress.secrets import load
from bridge.kafka.routing import RoutingTable
from bridge.runtime.configuration import place_of
from bridge.runtime.log_ids import current_id_key
from bridge.runtime.slots import SecretsError
from bridge.settings import Http, Registry, Settings, Source, refuse_risks


def scheme_of(name: str, source: Source) -> Scheme:
    """Build the scheme of a source.

    Raises:
        ConfigError: It is unknown, or a parameter of it is, or its secrets are missing; the message says where.
    """
    given = {each: getattr(source, f"scheme_{each}") for each in PARAMETERS}
    set_ones = {each: value for each, value in given.items() if value is not None}
    try:
        scheme = configure(source.scheme, set_ones, tolerance_s=source.tolerance_s)
    except ParameterError as exc:
        msg = f"{place(name, exc.parameter)}: {exc.says}"
        raise ConfigError(msg) from None
    if scheme.keyed and source.secrets_dir is None:
        msg = f"{place(name, 'secrets_dir')}: is required by the scheme {source.scheme}"
        raise ConfigError(msg)
    return scheme


def weaknesses_of(
    name: str, source: Source, scheme: Scheme, *, window_s: float, bucket_s: int, tls_in_front: bool
) -> Iterator[Weakness]:
    """Yield what is weak about a source and has not been accepted.

    Args:
        name: Of the source.
        source: Its settings.
        scheme: Its scheme.
        window_s: How long its ids are remembered.
        bucket_s: After how long its profile takes equal bytes without an id as another delivery; 0: never.
        tls_in_front: Deliveries come through a proxy that ends TLS.

    Raises:
        ConfigError: It accepts what is no weakness, or forgets ids while a repeat may still come.
    """
    accepted = _accepted(name, source)
    # Of an id that no signature covers, the header may be missing.
    if scheme.ids != "signed" and window_s < BUCKETS_OF_REPEATS * bucket_s:
        least_s = BUCKETS_OF_REPEATS * bucket_s
        msg = f"{place(name, 'dedupe_window_s')}: is at least {least_s}, the time for which repeats are recognised"
        raise ConfigError(msg)
    found = weaknesses(
        scheme, tolerance_s=source.tolerance_s, window_s=window_s, tls_in_front=tls_in_front, bucket_s=bucket_s
    )
    yield from (each for each in found if each.name not in accepted)


def refuse_weak(
    settings: Settings,
    schemes: Mapping[str, Scheme],
    keys: Mapping[str, Sequence[KeySlot]],
    windows_s: Mapping[str, float],
    buckets_s: Mapping[str, int],
) -> None:
    """See that no source is easier to forge than its operator has accepted.

    Args:
        settings: With every source.
        schemes: By source.
        keys: By source, as they are now.
        windows_s: By source, how long its ids are remembered.
        buckets_s: By source, after how long equal bytes without an id are another delivery; 0: never.

    Raises:
        ConfigError: One is; the message says where it is configured.
    """
    tls_in_front = settings.http.tls_in_front
    for name, source in settings.sources.items():
        found = weaknesses_of(
            name,
            source,
            schemes[name],
            window_s=windows_s[name],
            bucket_s=buckets_s[name],
            tls_in_front=tls_in_front,
        )
        for weak in found:
            msg = f"{place(name, 'scheme')}: {weak.says} → {weak.advice}, or accept it: accept_weak={weak.name}"
            raise ConfigError(msg)
    for owner, other in unaccepted_shared_keys(settings, keys):
        says = f"has a key that {owner} has too → give each source its own, or set accept_weak=shared_key in both"
        msg = f"{place(other, 'secrets_dir')}: {says}"
        raise ConfigError(msg)


def refuse_no_source(settings: Settings) -> None:
    """See that there is a source.

    Raises:
        ConfigError: There is none.
    """
    if not settings.sources:
        msg = "no source is configured; set BRIDGE_SOURCES__<NAME>__PROFILE, __ENVIRONMENT and __SECRETS_DIR"
        raise ConfigError(msg)


def refuse_unusable(settings: Settings) -> None:
    """See that a start would not refuse these settings, as far as files and settings say; nothing is opened.

    Raises:
        ConfigError: It would; the message is that of the start.
    """
    refuse_risks(settings)
    refuse_no_source(settings)
    sources = settings.sources
    schemes = {name: scheme_of(name, source) for name, source in sources.items()}
    keys = {
        name: load(source.secrets_dir, schemes[name]) if schemes[name].keyed and source.secrets_dir else ()
        for name, source in sources.items()
    }
    profiles = open_profiles(sources)
    windows_s = {name: source.dedupe_window_s or dedupe_window_s(profiles[name]) for name, source in sources.items()}
    refuse_weak(settings, schemes, keys, windows_s, {name: bucket_s(profile) for name, profile in profiles.items()})
    RoutingTable(settings.kafka.routes)
    settings.kafka.connection.options()
    address_limit(settings.http)
    current_id_key(settings.log.id_key_dir)
    _refuse_registry(settings.registry)


def _refuse_registry(registry: Registry) -> None:
    if registry.url or registry.username_file or registry.password_file:
        # Imported here: aiohttp alone takes 0.2 s.
        from bridge.registry.client import plain_url, read_credentials  # noqa: PLC0415

        read_credentials(registry.username_file, registry.password_file)
        if registry.url:
            plain_url(registry.url)


def unaccepted_shared_keys(settings: Settings, keys: Mapping[str, Sequence[KeySlot]]) -> Iterator[tuple[str, str]]:
    """Yield pairs of sources that have a key in common, where not both accept it."""
    for owner, other in shared_keys(keys):
        if not all("shared_key" in _accepted(name, settings.sources[name]) for name in (owner, other)):
            yield owner, other


def check_new_keys(settings: Settings, directories: Mapping[str, Secrets], name: str, keys: Sequence[KeySlot]) -> None:
    """See that the changed keys of a source are no other source's, as `refuse_weak` sees to it at the start.

    Raises:
        SecretsError: One is, and not both accept it.
    """
    after = {each: directory.keys for each, directory in directories.items()} | {name: keys}
    for pair in unaccepted_shared_keys(settings, after):
        if name in pair:
            raise SecretsError("secret_shared", f"{place(name, 'secrets_dir')}: has a key that another source has too")


def rate_limit(per_s: float | None, burst: int | None) -> RateLimit | None:
    """Return the limit that two settings make; without a burst, what comes in a second may come at once."""
    return None if per_s is None else RateLimit(per_s=per_s, burst=burst or max(1, math.ceil(per_s)))


def address_limit(http: Http) -> AddressLimit | None:
    """Return the limit of each address, if there is one.

    Raises:
        ConfigError: The trusted proxies are no networks, or far too many.
    """
    limit = rate_limit(http.address_rate_per_s, http.address_rate_burst)
    try:
        proxies = networks(http.trusted_proxies)
    except ValueError:
        place = place_of(Settings, "http", "trusted_proxies")
        msg = f"{place}: is a list of networks such as 10.0.0.0/8, separated by commas"
        raise ConfigError(msg) from None
    if are_too_wide(proxies):
        place = place_of(Settings, "http", "trusted_proxies")
        msg = f"{place}: is more than a /8 (IPv6: /7), so senders can claim addresses → name your proxies' networks"
        raise ConfigError(msg)
    return None if limit is None else AddressLimit(limit, proxies=proxies)


def place(name: str, setting: str) -> str:
    """Say where a setting of a source stands, or would stand."""
    return place_of(Settings, "sources", name, setting)


def _accepted(name: str, source: Source) -> set[str]:
    accepted = {each.strip() for each in source.accept_weak.split(",")} - {""}
    if not accepted <= set(NAMES):
        msg = f"{place(name, 'accept_weak')}: the names are {', '.join(NAMES)}"
        raise ConfigError(msg)
    return accepted
