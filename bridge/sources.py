"""Build schemes, handshakes and rate limits from the settings, and check keys."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bridge.errors import ConfigError
from bridge.ingress.challenges import Challenge, read_challenge
from bridge.ingress.delivery_limits import AddressLimit, RateLimit
from bridge.proof.origin import SLOT
from bridge.proof.scheme import KeySlot, Scheme, Secrets
from bridge.proof.schemes.lint import guessable, shared_keys
from bridge.proof.schemes.network import are_too_wide, networks
from bridge.proof.schemes.parameters import ParameterError
from bridge.proof.schemes.presets import configure
from bridge.runtime.configuration import place_of
from bridge.runtime.secret_files import SecretsError
from bridge.settings import HttpSettings, Settings, SourceSettings, named

# Schemes whose secret is a string, so that a vendor can send it as the token of a handshake, too.
TEXT_SECRETS = ("secret_header", "url_token", "body_hmac")


def configured_source(settings: Settings, name: str) -> SourceSettings:
    """Return the settings of a source."""
    if name not in settings.sources:
        known = ", ".join(settings.sources) or "none"
        raise ConfigError(f"no source is named {name!r}; known: {known}")
    return settings.sources[name]


def scheme_of(name: str, source: SourceSettings) -> Scheme:
    """Build the scheme of a source; `ConfigError` names an invalid setting."""
    try:
        scheme = configure(source.scheme, source.scheme_parameters, tolerance_s=source.tolerance_s)
    except ParameterError as exc:
        raise ConfigError(f"{place(name, exc.parameter)}: {exc.problem}") from None
    if scheme.keyed and source.secrets_dir is None:
        raise ConfigError(f"{place(name, 'secrets_dir')}: is required by the scheme {source.scheme}")
    return scheme


def challenge_of(name: str, source: SourceSettings, scheme: Scheme) -> Challenge | None:
    """Build the handshake of a source; `ConfigError` names an invalid setting."""
    try:
        challenge = read_challenge(source.challenge, source.challenge_token)
    except ParameterError as exc:
        raise ConfigError(f"{place(name, exc.parameter)}: {exc.problem}") from None
    if challenge and challenge.token[0] and not any(part.name in TEXT_SECRETS for part in scheme.parts):
        problem = f"needs a scheme whose secret is a string: {', '.join(TEXT_SECRETS)}"
        raise ConfigError(f"{place(name, 'challenge_token')}: {problem}")
    return challenge


def slots_dir(scheme: Scheme, source: SourceSettings) -> Path | None:
    """Return the directory of a source's slots; None for a scheme without keys, unless it has the slot `replay`."""
    directory = source.secrets_dir
    return directory if directory and (scheme.keyed or (directory / SLOT).exists()) else None


def shared_key_pairs(settings: Settings, keys: Mapping[str, Sequence[KeySlot]]) -> Iterator[tuple[str, str]]:
    """Yield pairs of sources that share a key, unless both accept this risk."""
    for owner, other in shared_keys(keys):
        if not all("shared_key" in named(settings.sources[name].accept) for name in (owner, other)):
            yield owner, other


def check_new_keys(settings: Settings, directories: Mapping[str, Secrets], name: str, keys: Sequence[KeySlot]) -> None:
    """Check changed keys; `SecretsError` if one can be guessed, or is shared and not all of its sources accept that."""
    for problem in guessable(keys):
        raise SecretsError("secret_guessable", f"{place(name, 'secrets_dir')}: {problem}")
    after = {each: directory.keys for each, directory in directories.items()} | {name: keys}
    for pair in shared_key_pairs(settings, after):
        if name in pair:
            raise SecretsError("secret_shared", f"{place(name, 'secrets_dir')}: has a key that another source also has")


def rate_limit(per_s: float | None) -> RateLimit | None:
    """Return the rate limit for `per_s`, or None; it admits one second's deliveries as a burst."""
    return None if per_s is None else RateLimit(per_s=per_s, burst=max(1, math.ceil(per_s)))


def address_limit(http: HttpSettings) -> AddressLimit | None:
    """Return the limit per address, if any; `ConfigError` if trusted proxies are invalid or too wide."""
    limit = rate_limit(http.address_rate_per_s)
    try:
        proxies = networks(http.trusted_proxies)
    except ValueError:
        place = place_of(Settings, "http", "trusted_proxies")
        raise ConfigError(f"{place}: must be a list of networks such as 10.0.0.0/8, separated by commas") from None
    if are_too_wide(proxies):
        place = place_of(Settings, "http", "trusted_proxies")
        msg = f"{place}: is more than a /8 (IPv6: /7), so senders can forge their address → name your proxies' networks"
        raise ConfigError(msg)
    return None if limit is None else AddressLimit(limit, proxies=proxies)


def place(name: str, setting: str) -> str:
    """Return the environment variable of a source's setting, or its entry in the settings file."""
    return place_of(Settings, "sources", name, setting)
