"""User and password of a registry, from the files that the settings name."""

from __future__ import annotations

from pathlib import Path

from bridge.errors import ConfigError


def read_credentials(username_file: Path | None, password_file: Path | None) -> tuple[str, str] | None:
    """Return what the first lines hold, or None where no file is named.

    Raises:
        ConfigError: Only one is named, or one cannot be read.
    """
    if username_file is None and password_file is None:
        return None
    if username_file is None or password_file is None:
        msg = "registry.username_file and registry.password_file go together; one of them is not set"
        raise ConfigError(msg)
    return _first_line(username_file), _first_line(password_file)


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError):
        msg = f"{path}: cannot be read; registry.username_file and registry.password_file must name readable files"
        raise ConfigError(msg) from None
