"""Find a profile by the name an operator wrote: the shipped ones, then those that packages of the site register."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from bridge.errors import ConfigError
from bridge.ingress.profiles import drx_standard
from bridge.ingress.profiles.profile import DEDUPE_WINDOW_MAX_S, DEDUPE_WINDOW_MIN_S, Profile, dedupe_window_s

# Fixed by the contract: packages of a site register theirs under it, `name = package.module`.
GROUP = "drx_bridge.profiles"

SHIPPED: Mapping[str, Profile] = MappingProxyType({"drx_standard": drx_standard})


def load_profile(name: str, *, registered: Iterable[EntryPoint] | None = None) -> Profile:
    """Load the profile `name`; a shipped name cannot be taken by another package.

    Args:
        name: As configured for a source.
        registered: Entry points to look in; those of the installed packages if none are given.

    Raises:
        ConfigError: No profile has the name, or the one that has cannot be loaded.
    """
    if name in SHIPPED:
        return SHIPPED[name]
    found = {point.name: point for point in (entry_points(group=GROUP) if registered is None else registered)}
    if name not in found:
        known = ", ".join(sorted({*SHIPPED, *found}))
        msg = f"no profile is named {name!r}; known: {known}"
        raise ConfigError(msg)
    try:
        profile = found[name].load()
    except Exception as exc:
        # Whatever a foreign module raises while it is imported, the operator must see which one and why it stopped us.
        msg = f"profile {name!r} ({found[name].value}) cannot be loaded: {type(exc).__name__}"
        raise ConfigError(msg) from exc
    if not callable(getattr(profile, "map", None)):
        msg = f"profile {name!r} ({found[name].value}) has no function 'map(delivery, document)'"
        raise ConfigError(msg)
    checked: Profile = profile
    window_s: object = dedupe_window_s(checked)
    if type(window_s) is not int or not DEDUPE_WINDOW_MIN_S <= window_s <= DEDUPE_WINDOW_MAX_S:
        bounds = f"{DEDUPE_WINDOW_MIN_S} to {DEDUPE_WINDOW_MAX_S}"
        msg = f"profile {name!r} ({found[name].value}): DEDUPE_WINDOW_S is no whole number of seconds, {bounds}"
        raise ConfigError(msg)
    return checked
