"""Options that choose the scheme of a command: the scheme of a configured source, or a scheme by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from bridge.errors import ConfigError, DeliveryRefusedError
from bridge.proof.scheme import ID, KeySlot, Raw, Scheme
from bridge.proof.schemes.parameters import ParameterError
from bridge.proof.schemes.presets import configure
from bridge.runtime.process import combined, pairs
from bridge.settings import SourceSettings, load_settings
from bridge.sources import configured_source, scheme_of

TOLERANCE_S: int | None = SourceSettings.model_fields["tolerance_s"].default
DEFAULT_SCHEME: str = SourceSettings.model_fields["scheme"].default


class AskedScheme(NamedTuple):
    """A scheme, how it was chosen, and the directory of its secrets if a source was named."""

    scheme: Scheme
    text: str
    parameters: Mapping[str, str]
    tolerance_s: int | None
    secrets_dir: Path | None


named_scheme_options = combined(
    click.option("--scheme", "scheme_text", help=f"Scheme, instead of that of a source; default: {DEFAULT_SCHEME}."),
    click.option("--parameter", "parameters", multiple=True, help="Parameter of that scheme, NAME=VALUE."),
)
scheme_options = combined(
    click.option("--source", "source_name", help="Configured source: its scheme, tolerance and secrets."),
    named_scheme_options,
)


def asked_scheme(source_name: str | None, scheme_text: str | None, parameters: Sequence[str]) -> AskedScheme:
    """Return the scheme that the options choose."""
    if source_name is not None:
        if scheme_text or parameters:
            raise click.UsageError("--source sets the scheme; omit --scheme and --parameter")
        settings = load_settings()
        source = configured_source(settings, source_name)
        scheme = scheme_of(source_name, source)
        return AskedScheme(scheme, source.scheme, source.scheme_parameters, source.tolerance_s, source.secrets_dir)
    text, named = scheme_text or DEFAULT_SCHEME, pairs(parameters, "=", usage="--parameter is NAME=VALUE")
    given = {name.lower().removeprefix("scheme_"): value for name, value in named}
    try:
        scheme = configure(text, given, tolerance_s=TOLERANCE_S)
    except ParameterError as exc:
        raise ConfigError(f"{exc.parameter}: {exc.problem}") from None
    return AskedScheme(scheme, text, given, TOLERANCE_S, None)


def refusal_of(scheme: Scheme, raw: Raw, keys: Sequence[KeySlot], now: float) -> str:
    """Return the code with which a scheme refuses a delivery; empty if it does not."""
    try:
        scheme.verify(raw, keys, now)
    except DeliveryRefusedError as exc:
        return exc.code
    return ""


def is_id(text: str) -> bool:
    """Return whether a delivery may have this id."""
    return ID.fullmatch(text.encode("utf-8", "surrogatepass")) is not None


def check_id(text: str) -> None:
    """Refuse an option value that is not a valid delivery id."""
    if not is_id(text):
        raise ConfigError("--id: 1 to 200 printable ASCII characters without a space")
