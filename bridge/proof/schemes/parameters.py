"""What an operator has set for a scheme, taken by the schemes one after the other, so that nothing stays unread."""

import re
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

from bridge.errors import ConfigError
from bridge.proof.origin import HEADERS as ORIGIN_HEADERS

# A field name (RFC 9110 5.1).
_is_header = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}").fullmatch
# These carry other meanings on every delivery, or change on the way.
_RESERVED = frozenset({"connection", "content-encoding", "content-length", "content-type", "expect", "host"}) | {
    "traceparent",
    "transfer-encoding",
    "user-agent",
    *(each.decode() for each in ORIGIN_HEADERS),
}


class ParameterError(ConfigError):
    """A parameter cannot be used."""

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter}: {problem}")
        self.parameter = parameter  # name of the parameter, or `scheme` if the choice of the scheme is at fault
        self.problem = problem


class Parameters:
    """The parameters of one scheme."""

    def __init__(
        self, scheme: str, *, given: MutableMapping[str, str], preset: Mapping[str, str], tolerance_s: int | None
    ) -> None:
        """Take what one scheme reads out of `given`, so that the next does not; else what a `preset` sets counts."""
        self.scheme = scheme
        self.tolerance_s = tolerance_s
        self._given = given
        self._preset = preset

    def text(self, name: str, default: str | None = None) -> str:
        """Take a parameter."""
        value = self._given.pop(name, self._preset.get(name, default))
        if value is None:
            raise self.error(name, f"is required by {self.scheme}")
        return value

    def choice(self, name: str, words: Collection[str], default: str | None = None) -> Any:
        """Take one of the words."""
        value = self.text(name, default)
        if value not in words:
            raise self.error(name, f"is one of {', '.join(words)}")
        return value

    def optional_choice(self, name: str, words: Collection[str]) -> Any:
        """Take one of the words, or None where it is not set."""
        return self.choice(name, words) if name in self._given or name in self._preset else None

    def header(self, name: str, default: str | None = None) -> bytes:
        """Take the name of a header, in lower case; empty if it is empty by default."""
        value = self.text(name, default)
        if value != default and (not _is_header(value) or value.lower() in _RESERVED):
            raise self.error(name, "is no name of a header that a sender could use for this")
        return value.lower().encode()

    def names(self, name: str, words: Collection[str], default: str) -> frozenset[str]:
        """Take some of the words, separated by commas."""
        found = frozenset(each.strip() for each in self.text(name, default).split(",")) - {""}
        if not found or not found <= set(words):
            raise self.error(name, f"is some of {', '.join(words)}, separated by commas")
        return found

    def error(self, name: str, problem: str) -> ParameterError:
        """Return the exception for a parameter."""
        return ParameterError(f"scheme_{name}", problem)
