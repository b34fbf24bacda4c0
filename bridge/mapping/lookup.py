"""Find a profile by its configured name, shipped or registered by a package, and build it for a source."""

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Protocol

from bridge.errors import ConfigError
from bridge.mapping import drx_standard
from bridge.mapping.profile import DEDUPE_WINDOW_MAX_S, DEDUPE_WINDOW_MIN_S, Profile, dedupe_window_s, refuse_unknown

# Group of entry points under which packages register profiles (`name = package.module`); documented, so fixed.
GROUP = "drx_bridge.profiles"

SHIPPED = ("drx_standard", "digitalrx_pharmacy", "dosespot_push", "photon_cloudevents", "mapped")


class Dialect(Protocol):
    """The settings of a source for its profile."""

    @property
    def profile(self) -> str:
        """Name of the profile."""

    @property
    def options(self) -> Mapping[str, str]:
        """Settings specific to this profile, by name."""

    @property
    def ignored(self) -> frozenset[str]:
        """The sender's names of types to ignore."""


def open_profiles(sources: Mapping[str, Dialect]) -> dict[str, Profile]:
    """Build each source's profile, which refuses ids with prefixes of others; `ConfigError` names the setting."""
    opened = {}
    for name, source in sources.items():
        try:
            opened[name] = load_profile(source.profile, source.options)
        except ConfigError as exc:
            setting = "" if str(exc).startswith("options.") else "profile: "
            raise ConfigError(f"sources.{name}.{setting}{exc}") from None
        if getattr(source, "body", "json") == "xml":
            opened[name] = _reading_xml(opened[name], name)
    owners: dict[str, list[str]] = {}
    for name, profile in opened.items():
        if prefix := getattr(profile, "PREFIX", ""):
            owners.setdefault(prefix, []).append(name)
    _check_shared(owners, sources)
    prefixes = tuple(sorted(owners))
    for name, profile in opened.items():
        if prefixes and (refusing := getattr(profile, "refusing", None)):
            opened[name] = refusing(prefixes)
        if words := sources[name].ignored:
            opened[name] = _ignoring(opened[name], words, name)
    return opened


def _reading_xml(profile: Profile, source: str) -> Profile:
    reading_xml = getattr(profile, "reading_xml", None)
    if reading_xml is None:
        raise ConfigError(f"sources.{source}.body: the profile reads JSON only; a mapping file also reads XML")
    try:
        found: Profile = reading_xml()
    except ConfigError as exc:
        raise ConfigError(f"sources.{source}.body: {exc}") from None
    return found


def _ignoring(profile: Profile, words: frozenset[str], source: str) -> Profile:
    ignoring = getattr(profile, "ignoring", None)
    found: Profile | None = ignoring(words) if ignoring else None
    if found is None:
        msg = f"sources.{source}.ignore: the profile cannot ignore types; a mapping file can, by `reported`"
        raise ConfigError(msg)
    return found


def _check_shared(owners: Mapping[str, list[str]], sources: Mapping[str, Dialect]) -> None:
    """Refuse sources whose equal ids would give the same key, unless each names the shared prefix explicitly."""
    for prefix, names in owners.items():
        silent = [name for name in names if sources[name].options.get("prefix") != prefix]
        if len(names) > 1 and silent:
            raise ConfigError(
                f"sources.{silent[0]}.options.prefix: keys of {' and '.join(names)} begin with {prefix!r}, so equal ids"
                " would be one prescription; set another prefix for one, or this one for both if they share ids"
            )


def load_profile(
    name: str, options: Mapping[str, str] = MappingProxyType({}), *, registered: Iterable[EntryPoint] | None = None
) -> Profile:
    """Load a profile, shipped ones first; `ConfigError` if none has the name or it rejects the options."""
    found = find_profile(name, registered=registered)
    if (configure := getattr(found, "configure", None)) is not None:
        found = configure(options)
    else:
        refuse_unknown(options)
    profile: Profile = found
    return profile


def find_profile(name: str, *, registered: Iterable[EntryPoint] | None = None) -> Any:
    """Find a profile, or a module that builds one, by name; `ConfigError` if it cannot be loaded."""
    if name == "drx_standard":
        return drx_standard
    if name in SHIPPED:
        # Imported here: a tenth of all imports, needed only by sources with a mapping file.
        from bridge.mapping import mapped  # noqa: PLC0415

        return mapped if name == "mapped" else mapped.Vendor(name)
    found = {point.name: point for point in (entry_points(group=GROUP) if registered is None else registered)}
    if name not in found:
        known = sorted({*SHIPPED, *found})
        raise ConfigError(f"no profile is named {name!r}; known: {', '.join(known)}")
    try:
        profile = found[name].load()
    except Exception as exc:
        # Whatever a third-party module raises at import, the operator must see which module failed and why.
        raise ConfigError(f"profile {name!r} ({found[name].value}) cannot be loaded: {type(exc).__name__}") from exc
    if not callable(getattr(profile, "configure", getattr(profile, "map", None))):
        raise ConfigError(f"profile {name!r} ({found[name].value}) has no function 'map(delivery, document)'")
    window_s: object = dedupe_window_s(profile)
    if type(window_s) is not int or not DEDUPE_WINDOW_MIN_S <= window_s <= DEDUPE_WINDOW_MAX_S:
        bounds = f"{DEDUPE_WINDOW_MIN_S} to {DEDUPE_WINDOW_MAX_S}"
        msg = f"profile {name!r} ({found[name].value}): DEDUPE_WINDOW_S is not a whole number of seconds, {bounds}"
        raise ConfigError(msg)
    return profile
