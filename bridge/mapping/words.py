"""Read vendors' enum values, booleans, days, local times and key parts; independent of any one vendor."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from bridge.errors import ConfigError
from bridge.mapping.json_body import Real
from bridge.mapping.profile import Flag
from bridge.mapping.readers import text_of_id
from bridge.mapping.record_keys import KEY_MAX
from bridge.mapping.values import day_of_text, instant_of_text

# As in keys of native DRx; a colon separates the parts, so within a part it is written `%3A`.
_KEY_PART = re.compile(r"[A-Za-z0-9._:-]+")
# An American date, optionally with a time: `9/18/2026`, `9/18/2026 5:22 PM`, `9/18/2026 17:22:05`.
_AMERICAN = re.compile(
    r"(?P<month>[0-9]{1,2})/(?P<day>[0-9]{1,2})/(?P<year>[0-9]{4})"
    r"(?:[ T](?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}))?(?: ?(?P<half>[AaPp])[Mm])?)?"
)
# `DateTime.MinValue`, which .NET writes for an unset date.
_UNSET = re.compile(r"\s*(?:0001-01-01|0?1/0?1/0001)(?![0-9])")
_ISO_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TRUTHS: Mapping[str, bool] = {
    **dict.fromkeys(("1", "true", "yes", "y"), True),
    **dict.fromkeys(("0", "false", "no", "n"), False),
}
_NOON = 12
_PREFIX = re.compile(r"[a-z][a-z0-9_-]{0,15}:")
_REQUESTS = "req:"  # keys of native requests without a prescription
PREFIX_RULE = "prefix is not a letter, up to 15 of a-z, 0-9, _ and -, and a colon; nor may it be req:"


def is_given(item: object) -> bool:
    """Return whether a member has a value: not null, blank, or .NET's unset date."""
    return bool(item.strip()) and not _UNSET.match(item) if type(item) is str else item is not None


def is_scalar_given(item: object) -> bool:
    """Return whether a member is a number or a non-blank string."""
    return type(item) in (str, int, Real) and is_given(item)


def folded(word: str) -> str:
    """Return a value in lower case without surrounding white space."""
    return " ".join(word.casefold().split())


def truth_of(item: object) -> bool | None:
    """Read a vendor's boolean; None if it is not one."""
    if type(item) is bool:
        return item
    text = text_of_id(item)
    return None if text is None else _TRUTHS.get(folded(text))


def key_of(prefix: str, *parts: object) -> str | None:
    """Build a key from the parts of a vendor's id, general part first; None if a part is not allowed in a key."""
    texts = [text_of_id(part) for part in parts]
    if not all(text is not None and _KEY_PART.fullmatch(text) for text in texts):
        return None
    key = prefix + ":".join((text or "").replace(":", "%3A") for text in texts)
    return key if len(key) <= KEY_MAX else None


def prefix_of(options: Mapping[str, str], default: str = "") -> str:
    """Return the key prefix of a source: its option, else the vendor's; `ConfigError` if invalid."""
    prefix = options.get("prefix", default)
    if "prefix" in options and not is_prefix(prefix):
        raise ConfigError(f"options.prefix: {PREFIX_RULE}")
    return prefix


def is_prefix(text: str) -> bool:
    """Return whether a string can be a key prefix."""
    return bool(_PREFIX.fullmatch(text)) and text != _REQUESTS


# There are some 600 zones; the library caches eight.
@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo | None:
    """Return a time zone; None if there is none of this name."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return None


def zone_of(options: Mapping[str, str], default: str = "") -> ZoneInfo | None:
    """Return the zone for times without one: the option, else the default, else None; `ConfigError` if unknown."""
    name = options.get("zone", default)
    zone = zone_named(name) if name else None
    if name and zone is None:
        at = "options.zone" if "zone" in options else "zone"
        raise ConfigError(f"{at}: no time zone is named {name!r}; it is a name such as America/Chicago")
    return zone


def day_of(text: str) -> date:
    """Read the day of `YYYY-MM-DD` or `M/D/YYYY`, with or without a time; raises like `day_of_text`."""
    text = text.strip()
    iso = _iso_of_american(text)
    if iso is None:
        if not _ISO_DAY.fullmatch(text):
            instant_of_text(text, set())
        iso = text
    return day_of_text(iso[:10])


def is_plain_day(text: str) -> bool:
    """Return whether a string that `day_of` reads is a day without a time."""
    text = text.strip()
    return bool(_ISO_DAY.fullmatch(text)) or ":" not in text


def instant_of(text: str, zone: tzinfo | None, flags: set[Flag]) -> datetime:
    """Read RFC 3339, or an ISO or American local time or day in `zone` (None: UTC); raises like `instant_of_text`."""
    text = text.strip()
    iso = _iso_of_american(text) or (f"{text}T00:00:00" if _ISO_DAY.fullmatch(text) else text)
    noted: set[Flag] = set()
    moment = instant_of_text(iso, noted)
    if zone is not None and "instant_naive" in noted:
        moment = moment.replace(tzinfo=zone).astimezone(UTC)
        noted.remove("instant_naive")
        noted.add("local_time")
    flags |= noted
    return moment


def _iso_of_american(text: str) -> str | None:
    """Convert an American day or time to ISO 8601; None if it is not one. The day need not exist."""
    match = _AMERICAN.fullmatch(text)
    if match is None:
        return None
    hour = int(match["hour"] or 0)
    if match["half"]:
        if not 1 <= hour <= _NOON:
            raise ValueError
        hour = hour % _NOON + (_NOON if match["half"] in "Pp" else 0)
    day = f"{match['year']}-{match['month']:>02}-{match['day']:>02}"
    return f"{day}T{hour:02}:{match['minute'] or '00'}:{match['second'] or '00'}"
