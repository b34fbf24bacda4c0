"""Read settings, the environment over a TOML file; a mistake is named in one line, and no value is ever shown."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from bridge.errors import ConfigError

_TOML_PLACE = re.compile(r"\(at line ([0-9]+), column ([0-9]+)\)$")
# Variables that Kubernetes sets for a Service in the namespace ("Discovering services: environment variables").
_SERVICE_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?$")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
# Of BRIDGE_DEV_CACHE and its like.
_DEV = "dev_"

AnySettings = TypeVar("AnySettings", bound="FileSettings")


class Section(BaseModel):
    """A group of settings: immutable, closed, and silent about the values it was given."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _json(value: object) -> object:
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


# In the environment a variable for each, or all of them as one JSON object.
FromJson = BeforeValidator(_json)


class FileSettings(Section):
    """A whole configuration, immutable: `<PREFIX><SECTION>__<NAME>`, and the file that `<PREFIX>CONFIG` names."""

    PREFIX: ClassVar[str]


def config_variable(model: type[FileSettings]) -> str:
    """Return the variable that names the TOML file."""
    return f"{model.PREFIX}CONFIG"


def read_settings(model: type[AnySettings]) -> AnySettings:
    """Read a configuration once; the environment wins over the file.

    Raises:
        ConfigError: Unreadable file, unknown name or bad value; the message names the setting and never shows a value.
    """
    given = _from_environment(model)
    try:
        return model.model_validate(_merged(_from_file(config_variable(model)), given, "the environment"))
    except ValidationError as exc:
        raise ConfigError("; ".join(_complaints(exc, model))) from None


def _from_file(variable: str) -> dict[str, Any]:
    path = os.environ.get(variable)
    if not path:
        return {}
    try:
        if not Path(path).is_file():
            msg = f"{variable}: no such file: {path}"
            raise ConfigError(msg)
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as exc:
        found = _TOML_PLACE.search(str(exc))  # of its text, only the place: the rest may hold what stands there
        where = f"{path}:{found[1]}:{found[2]}" if found else f"{path}, at its end"
        msg = f"{where}: is not valid TOML ({variable})"
        raise ConfigError(msg) from None
    except (OSError, UnicodeDecodeError):
        msg = f"{variable}: cannot read {path}"
        raise ConfigError(msg) from None


def _from_environment(model: type[FileSettings]) -> dict[str, Any]:
    """Return what the variables say, nested; one that is empty says nothing, as a chart may leave a value out.

    Raises:
        ConfigError: One is no setting. Kubernetes sets `BRIDGE_PORT` for a Service named `bridge`, and `drx-bridge dev`
            has variables of its own; these are let be.
    """
    known = sorted(model.model_fields)
    given: dict[str, Any] = {}
    for name, value in sorted(os.environ.items()):
        if not name.upper().startswith(model.PREFIX):
            continue
        section, *rest = name[len(model.PREFIX) :].lower().split("__")
        if section in known:
            given = _merged(given, _nested([section, *rest], value), name) if value else given
        elif rest:
            msg = f"{name}: unknown section {section!r}; the sections are: {', '.join(known)}"
            raise ConfigError(msg)
        elif section != "config" and not section.startswith(_DEV) and not _is_service_link(name.upper(), value):
            msg = f"{name}: unknown setting; two underscores follow a section, as in {model.PREFIX}LOG__LEVEL"
            raise ConfigError(msg)
    return given


def _nested(keys: Sequence[str], value: str) -> dict[str, Any]:
    found: Any = value
    for key in reversed(keys):
        found = {key: found}
    return cast("dict[str, Any]", found)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], above_name: str) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, dict) and isinstance(under, str):
            msg = f"{above_name}: is part of {key!r}, which is set as a whole, too"
            raise ConfigError(msg)
        merged[key] = (
            _merged(under, value, above_name) if isinstance(value, dict) and isinstance(under, dict) else value
        )
    return merged


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


def _is_service_link(variable: str, value: str) -> bool:
    return _SERVICE_LINK.search(variable) is not None or _SERVICE_ADDRESS.match(value) is not None


def place_of(model: type[FileSettings], *keys: str) -> str:
    """Say where a setting stands: its variable, or the file and its name there."""
    variable = model.PREFIX + "__".join(keys).upper()
    path = os.environ.get(config_variable(model))
    if not path or any(name.upper() == variable for name in os.environ):
        return variable
    at: Any = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    for key in keys[:-1]:
        at = at.get(key) if isinstance(at, dict) else None
    return f"{path}: {'.'.join(keys)}" if at else variable


def _complaints(exc: ValidationError, model: type[FileSettings]) -> Iterator[str]:
    for error in exc.errors(include_input=False, include_url=False):
        text, keys = error["msg"].removeprefix("Value error, "), [str(key) for key in error["loc"]]
        if error["type"] == "extra_forbidden":
            text = "unknown setting"
        elif error["type"] in {"model_type", "dict_type"}:
            text = f"is no section; set {model.PREFIX}{'__'.join(keys).upper()}__<NAME>"
        yield f"{place_of(model, *keys)}: {text}" if keys else text
