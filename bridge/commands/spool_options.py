"""Options of all verbs of `drx-bridge spool`: which directory, which keys, JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from bridge.errors import ConfigError
from bridge.settings import load_settings


def path_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a verb `--dir`, `--key-dir` and `--json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output."),
        click.option(
            "--key-dir",
            type=click.Path(path_type=Path),
            help="Default: BRIDGE_SPOOL__KEY_DIR, or `keys` in the spool's directory.",
        ),
        click.option("--dir", "directory", type=click.Path(path_type=Path), help="Default: BRIDGE_SPOOL__DIR."),
    ):
        command = option(command)
    return command


def paths_of(directory: Path | None, key_dir: Path | None) -> tuple[Path, Path]:
    """Return where the spool and its keys are: as given, or as set."""
    if directory is None or key_dir is None:
        settings = load_settings().spool
        directory = directory or settings.dir
        key_dir = key_dir or settings.key_dir
    if not directory.is_dir():
        msg = f"{directory}: no such directory; give that of the spool as --dir"
        raise ConfigError(msg)
    return directory, key_dir or directory / "keys"
