"""Read settings from the environment and a TOML file; an error is one line and never shows a value."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from bridge.errors import ConfigError

_TOML_PLACE = re.compile(r"\(at line ([0-9]+), column ([0-9]+)\)$")
# Variables that Kubernetes sets for a Service in the namespace ("Discovering services: environment variables").
_SERVICE_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?$")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
# Prefix of BRIDGE_DEV_CACHE and similar variables.
_DEV = "dev_"

_Settings = TypeVar("_Settings", bound="FileSettings")


class Section(BaseModel):
    """A group of settings: immutable, closed, and without values in error messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class FileSettings(BaseSettings):
    """A whole configuration, immutable: variables `<PREFIX><SECTION>__<NAME>` over the file in `<PREFIX>CONFIG`."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="__",
        env_ignore_empty=True,  # a chart sets the variable even for an omitted value
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
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment take precedence over the TOML file."""
        path = os.environ.get(config_variable(cls))
        toml = (TomlConfigSettingsSource(settings_cls, Path(path)),) if path else ()
        return (init_settings, _Environment(settings_cls), *toml)


class _Environment(EnvSettingsSource):
    """The environment; scalars stay text instead of being decoded as JSON."""

    def decode_complex_value(self, field_name: str, field: FieldInfo | None, value: Any) -> Any:
        """Decode lists and objects as JSON, but not numbers, which would lose their notation."""
        decoded = super().decode_complex_value(field_name, field, value)  # type: ignore[arg-type]
        return decoded if field or isinstance(decoded, list | dict) else value


def prefix_of(model: type[FileSettings]) -> str:
    """Return the prefix of a configuration's variables."""
    return model.model_config["env_prefix"]


def config_variable(model: type[FileSettings]) -> str:
    """Return the variable that names the TOML file."""
    return f"{prefix_of(model)}CONFIG"


def read_settings(model: type[_Settings]) -> _Settings:
    """Read a configuration; `ConfigError` names the wrong setting and never shows a value."""
    prefix, variable = prefix_of(model), config_variable(model)
    _refuse_unknown(os.environ, model, prefix)
    path = os.environ.get(variable)
    try:
        if path and not Path(path).is_file():
            raise ConfigError(f"{variable}: no such file: {path}")
        return model()
    except ValidationError as exc:
        raise ConfigError("; ".join(_complaints(exc, model))) from None
    except tomllib.TOMLDecodeError as exc:
        found = _TOML_PLACE.search(str(exc))  # only the position: the rest of the message may contain values
        where = f"{path}:{found[1]}:{found[2]}" if found else f"{path}, at its end"
        raise ConfigError(f"{where}: is not valid TOML ({variable})") from None
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{variable}: cannot read {path}") from None
    except ValueError:
        # pydantic-settings raises its own SettingsError when a whole section is given as a string that is not JSON.
        msg = f"a {prefix}<SECTION> variable is set as a whole and is not JSON; use {prefix}<SECTION>__<NAME>"
        raise ConfigError(msg) from None


def masked(settings: FileSettings) -> dict[str, Any]:
    """Return effective values as JSON types; declared secrets, and credentials in URLs, are masked."""
    shown: dict[str, Any] = settings.model_dump(mode="json")
    if url := shown["registry"]["url"]:
        shown["registry"]["url"] = masked_url(url)
    return shown


def masked_url(url: str) -> str:
    """Return a URL without its user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://***@{rest.rsplit('@', 1)[1]}" if "@" in rest else url


def _refuse_unknown(environ: Mapping[str, str], model: type[FileSettings], prefix: str) -> None:
    """Refuse variables that pydantic-settings ignores: `BRIDGE_KAFAK__X`, `BRIDGE_HTTP_PORT`, `BRIDGE_INSTANC`.

    Exempt are variables of `drx-bridge dev`, and those of Kubernetes, such as `BRIDGE_PORT` for a Service `bridge`.
    """
    known = sorted(model.model_fields)
    for name, value in environ.items():
        own = name[len(prefix) :].lower()
        section, doubled, _ = own.partition("__")
        if not name.upper().startswith(prefix) or section in {"config", *known}:
            continue
        if doubled:
            raise ConfigError(f"{name}: unknown section {section!r}; the sections are: {', '.join(known)}")
        is_link = _SERVICE_LINK.search(name.upper()) or _SERVICE_ADDRESS.match(value)
        if not own.startswith(_DEV) and not is_link:
            msg = f"{name}: unknown setting; section and name have two underscores between them: {prefix}LOG__LEVEL"
            raise ConfigError(msg)


def place_of(model: type[FileSettings], *keys: str) -> str:
    """Return where a setting is: its variable, or its name in the file."""
    variable = prefix_of(model) + "__".join(keys).upper()
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
        yield f"{place_of(model, *keys)}: {text}" if keys else text
