"""Address and credentials of a schema registry."""

from pathlib import Path

from pydantic import Field
from yarl import URL

from bridge.errors import ConfigError
from bridge.runtime.configuration import Section
from bridge.runtime.hosts import is_host


class RegistryAddress(Section):
    """Settings of a schema registry; without a URL, the ids of the bundled lock are used."""

    url: str | None = Field(None, description="Confluent-compatible registry; unset: the ids of the bundled lock")
    username_file: Path | None = Field(None, description="file whose first line is the user name")
    password_file: Path | None = Field(None, description="file whose first line is the password")

    def credentials(self) -> tuple[str, str] | None:
        """Return user name and password; None if neither is set. `ConfigError` if only one is, or one is unreadable."""
        if self.username_file is None and self.password_file is None:
            return None
        if self.username_file is None or self.password_file is None:
            raise ConfigError("registry.username_file and registry.password_file: set both or neither")
        return _first_line(self.username_file), _first_line(self.password_file)


def plain_url(url: str) -> str:
    """Return a URL without credentials, query, fragment and final slash; a `ConfigError` does not quote the URL."""
    try:
        parts = URL(url)
        host = parts.host or ""
    except ValueError:
        parts, host = URL(), ""
    if parts.scheme not in ("http", "https") or not is_host(host):
        msg = "the registry's URL is not an http:// or https:// URL with a host, such as https://registry.example:8081"
        raise ConfigError(msg)
    return str(parts.with_user(None).with_query(None).with_fragment(None)).rstrip("/")


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError):
        msg = f"{path}: cannot be read; registry.username_file and registry.password_file must name readable files"
        raise ConfigError(msg) from None
