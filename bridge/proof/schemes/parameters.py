"""Configured parameters of schemes; each scheme takes its own, so that unknown ones are detected."""

import re
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

from bridge.errors import ConfigError
from bridge.proof.origin import HEADERS as ORIGIN_HEADERS

# A field name (RFC 9110 5.1).
_is_header = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}").fullmatch
# Headers that have another meaning or that proxies change.
_RESERVED = frozenset({"connection", "content-encoding", "content-length", "content-type", "expect", "host"}) | {
    "traceparent",
    "transfer-encoding",
    "user-agent",
    *(each.decode() for each in ORIGIN_HEADERS),
}


class ParameterError(ConfigError):
    """A parameter is invalid."""

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter}: {problem}")
        self.parameter = parameter  # name of the parameter, or `scheme` if the scheme itself is invalid
        self.problem = problem


class Parameters:
    """The parameters of one scheme."""

    def __init__(
        self, scheme: str, *, given: MutableMapping[str, str], preset: Mapping[str, str], tolerance_s: int | None
    ) -> None:
        """Each value read is removed from `given`, so that the next scheme does not get it; `preset` has defaults."""
        self.scheme = scheme
        self.tolerance_s = tolerance_s
        self._given = given
        self._preset = preset

    def text(self, name: str, default: str | None = None) -> str:
        """Take a parameter as text."""
        value = self._given.pop(name, self._preset.get(name, default))
        if value is None:
            raise self.error(name, f"is required by {self.scheme}")
        return value

    def choice(self, name: str, words: Collection[str], default: str | None = None) -> Any:
        """Take a parameter that is one of `words`."""
        value = self.text(name, default)
        if value not in words:
            raise self.error(name, f"must be one of {', '.join(words)}")
        return value

    def optional_choice(self, name: str, words: Collection[str]) -> Any:
        """Take a parameter that is one of `words`, or None if it is not set."""
        return self.choice(name, words) if name in self._given or name in self._preset else None

    def header(self, name: str, default: str | None = None) -> bytes:
        """Take a header name, in lower case; may be empty if that is the default."""
        value = self.text(name, default)
        if value != default and (not _is_header(value) or value.lower() in _RESERVED):
            raise self.error(name, "must be a valid header name without another meaning")
        return value.lower().encode()

    def names(self, name: str, words: Collection[str], default: str) -> frozenset[str]:
        """Take a parameter that lists some of `words`, separated by commas."""
        found = frozenset(each.strip() for each in self.text(name, default).split(",")) - {""}
        if not found or not found <= set(words):
            raise self.error(name, f"must be one or more of {', '.join(words)}, separated by commas")
        return found

    def error(self, name: str, problem: str) -> ParameterError:
        """Return the exception for a parameter."""
        return ParameterError(f"scheme_{name}", problem)
