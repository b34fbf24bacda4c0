"""Read settings, the environment over a TOML file; a mistake is named in one line, and no value is ever shown."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from bridge.errors import ConfigError
from bridge.runtime.suggest import did_you_mean

# TOML 1.0.0, "Table" and "Keys".
_TABLE = re.compile(r"\s*\[([^\[\]]+)\]")
_TOML_PLACE = re.compile(r"\(at line ([0-9]+), column ([0-9]+)\)$")
_KEY = re.compile(r"\"[^\"]*\"|'[^']*'|[A-Za-z0-9_-]+")
# pydantic names what a literal may be in its context: `'debug', 'info' or 'error'`.
_EXPECTED = re.compile(r"'([^']*)'")
# Of a place such as `sources.*.profile`: any name.
_ANY = "*"
# Variables that Kubernetes sets for a Service in the namespace ("Discovering services: environment variables").
_SERVICE_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?$")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")

AnySettings = TypeVar("AnySettings", bound="FileSettings")


class Section(BaseModel):
    """A group of settings: immutable, closed, and silent about the values it was given."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class FileSettings(BaseSettings):
    """A whole configuration, immutable: `<PREFIX><SECTION>__<NAME>`, and the file that `<PREFIX>CONFIG` names."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="__",
        env_ignore_empty=True,  # a chart that leaves a value out still sets the variable
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        nested_model_default_partial_update=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment wins over the TOML file."""
        path = os.environ.get(config_variable(cls))
        toml = (TomlConfigSettingsSource(settings_cls, Path(path)),) if path else ()
        return (init_settings, env_settings, *toml)


def prefix_of(model: type[FileSettings]) -> str:
    """Return what the variables of a configuration begin with."""
    return model.model_config["env_prefix"]


def config_variable(model: type[FileSettings]) -> str:
    """Return the variable that names the TOML file."""
    return f"{prefix_of(model)}CONFIG"


def read_settings(model: type[AnySettings]) -> AnySettings:
    """Read a configuration once.

    Raises:
        ConfigError: Unreadable file, unknown name or bad value; the message names the setting and never shows a value.
    """
    prefix, variable = prefix_of(model), config_variable(model)
    _refuse_unknown_sections(os.environ, model, prefix)
    path = os.environ.get(variable)
    try:
        if path and not Path(path).is_file():
            msg = f"{variable}: no such file: {path}"
            raise ConfigError(msg)
        return model()
    except ValidationError as exc:
        raise ConfigError("; ".join(_complaints(exc, model))) from None
    except tomllib.TOMLDecodeError as exc:
        found = _TOML_PLACE.search(str(exc))  # of its text, only the place: the rest may hold what stands there
        where = f"{path}:{found[1]}:{found[2]}" if found else f"{path}, at its end"
        msg = f"{where}: is not valid TOML ({variable})"
        raise ConfigError(msg) from None
    except (OSError, UnicodeDecodeError):
        msg = f"{variable}: cannot read {path}"
        raise ConfigError(msg) from None
    except ValueError:
        # pydantic-settings raises its own SettingsError when a whole section is given as text that is not JSON.
        msg = f"a {prefix}<SECTION> variable is set as a whole and is not JSON; use {prefix}<SECTION>__<NAME>"
        raise ConfigError(msg) from None


def masked(settings: FileSettings) -> dict[str, Any]:
    """Effective values as JSON types, secrets masked: what is declared one, and a password inside a URL."""
    shown: dict[str, Any] = settings.model_dump(mode="json")
    if url := shown["registry"]["url"]:
        shown["registry"]["url"] = masked_url(url)
    return shown


def masked_url(url: str) -> str:
    """Return a URL without its user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://***@{rest.rsplit('@', 1)[1]}" if "@" in rest else url


def _refuse_unknown_sections(environ: Mapping[str, str], model: type[FileSettings], prefix: str) -> None:
    """pydantic-settings silently ignores `BRIDGE_KAFAK__X` and `BRIDGE_HTTP_PORT`; an operator must hear of both.

    Other names without `__` are not ours to judge: Kubernetes sets `BRIDGE_PORT` for a Service named `bridge`.
    """
    known = sorted(model.model_fields)
    for name, value in environ.items():
        own = name[len(prefix) :].lower()
        section = own.partition("__")[0]
        if not name.upper().startswith(prefix) or section in known:
            continue
        doubled = _doubled(own, model)
        meant = f"; did you mean {prefix}{doubled.upper()}?" if doubled else did_you_mean(section, known)
        if "__" in own:
            msg = f"{name}: unknown section {section!r}; the sections are: {', '.join(known)}{meant}"
            raise ConfigError(msg)
        if doubled and not _is_service_link(name.upper(), value):
            msg = f"{name}: unknown setting{meant}"
            raise ConfigError(msg)


def _doubled(own: str, model: type[FileSettings]) -> str:
    """Return the known setting that a name becomes when some of its underscores are doubled, or nothing."""
    for place in _places(model):
        parts = ("([a-z0-9-][a-z0-9_-]*?)" if part == _ANY else f"({part})" for part in place)
        if found := re.fullmatch("__?".join(parts), own):
            return "__".join(found.groups())
    return ""


def _places(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Yield where settings stand, from the outside to the inside; `*` for a name that an operator gives."""
    for name, field in model.model_fields.items():
        (section, is_named) = _inner(field.annotation)
        if section is not None:
            yield from ((name, *([_ANY] if is_named else []), *rest) for rest in _places(section))
            continue
        yield (name,)
        if is_named:
            yield (name, _ANY)


def _inner(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    """Return the section that a field holds, if it holds one, and whether it holds them, or texts, by name."""
    inside = [each for each in (annotation, *get_args(annotation)) if _is_section(each)]
    return (inside[0] if inside else None), get_origin(annotation) is dict


def _is_service_link(variable: str, value: str) -> bool:
    return _SERVICE_LINK.search(variable) is not None or _SERVICE_ADDRESS.match(value) is not None


def place_of(model: type[FileSettings], *keys: str) -> str:
    """Say where a setting stands: its variable, or file, line and the name in TOML if it comes from that file."""
    variable = prefix_of(model) + "__".join(keys).upper()
    path = os.environ.get(config_variable(model))
    if not path or not keys or any(name.upper() == variable for name in os.environ):
        return variable
    line = _line_of(Path(path), keys)
    return f"{path}:{line}: {'.'.join(keys)}" if line else variable


def _line_of(path: Path, keys: tuple[str, ...]) -> int:
    """Return the number of the line that sets a key, or else the table that it belongs to; 0 for neither."""
    best, line_of_best = 0, 0
    table: list[str] = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        header = _TABLE.match(line)
        if header:
            table = found = _parts(header[1])
        else:
            found = table + _parts(line.partition("=")[0])
        if len(found) > best and found == list(keys[: len(found)]):
            best, line_of_best = len(found), number
    return line_of_best


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _KEY.findall(dotted)]


def _meant(model: type[FileSettings], keys: Sequence[str]) -> str:
    """Return what an unknown setting may have been meant to be, as it is written where it stands, or nothing."""
    *parents, name = keys
    section: type[BaseModel] | None = model
    for parent in parents:
        field = section.model_fields.get(parent) if section is not None else None
        # Of a dictionary of sections, such as `sources`, the next part is a name.
        section = _inner(field.annotation)[0] if field else section
    if section is None:
        return ""
    variable = prefix_of(model) + "__".join(keys).upper()
    is_variable = place_of(model, *keys) == variable
    written = (lambda each: prefix_of(model) + "__".join((*parents, each)).upper()) if is_variable else str
    return did_you_mean(name, section.model_fields, written=written)


def _is_section(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _complaints(exc: ValidationError, model: type[FileSettings]) -> Iterator[str]:
    for error in exc.errors(include_url=False):
        text, keys = error["msg"].removeprefix("Value error, "), [str(key) for key in error["loc"]]
        if error["type"] == "extra_forbidden":
            text = f"unknown setting{_meant(model, keys)}"
        elif error["type"] == "literal_error":  # what was given is compared, and never shown
            text += did_you_mean(str(error["input"]), _EXPECTED.findall(error["ctx"]["expected"]))
        yield f"{place_of(model, *keys)}: {text}" if keys else text
