"""The reference of every setting, from the models that read them."""
# ruff: noqa: INP001 - a script next to its pages, not a package

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from textwrap import fill
from typing import Any

from bridge.runtime.configuration import FileSettings, config_variable, prefix_of
from bridge.settings import PREFIX, Settings
from consumers.options import Options
from consumers.settings import PREFIX as CONSUMER
from consumers.settings import ConsumerSettings
from docs.folders import folders

# A source is named by the operator, so its settings have a placeholder for the name.
NAME = "<NAME>"
FILE = config_variable(Settings)
INTRO = f"""# Settings

`drx-bridge` reads its settings once, at start. The environment overrides the TOML file named by `{FILE}`, and the
file overrides the defaults. `__` separates the levels; the same names in lower case are the keys in TOML:

```toml
[http]
port = 8080

[sources.drx]
profile = "drx_standard"
environment = "production"
secrets_dir = "/etc/drx-bridge/secrets/drx"
```

With an unknown name or a value out of bounds the process exits with code 2 and one line that names the setting.
`drx-bridge config` prints the effective values and exits with 2 if `serve` would not start with them (`--check`: only
the reason); `drx-bridge doctor` checks whether they work. Lists are names separated by commas; in the file
they may also be TOML lists. A table (`{PREFIX}KAFKA__ROUTES`) is JSON in the environment. No setting contains a
secret: those with `FILE` or `DIR` in their name point to it.

An empty variable counts as unset: the value of the file or the default is used. A name with too few underscores
(`{PREFIX}HTTP_PORT`) is refused if doubling some of them makes a setting. Other variables that begin with `{PREFIX}`
and have no `__` are ignored. Kubernetes sets such variables for a Service named `bridge` (`{PREFIX}PORT`,
`{PREFIX}SERVICE_HOST`, `{PREFIX}PORT_8080_TCP`), and a value such as `tcp://10.0.0.1:80` is never read as a setting.

Settings that depend on each other:

- `{PREFIX}HTTP__DEADLINE_S` < a third of `{PREFIX}SHUTDOWN__GRACE_S`: a stop must not cut off a response;
- if `{PREFIX}KAFKA__SECURITY_PROTOCOL` is `SASL_…`, the mechanism and both files are required, otherwise refused;
- `{PREFIX}SOURCES__<NAME>__SECRETS_DIR` is required unless the scheme is `cidr`;
- each `…__SCHEME_…` must be a parameter of the scheme ([senders.md](senders.md#other-schemes)), and weak ones must
  be accepted;
- `{PREFIX}REGISTRY__USERNAME_FILE` and `{PREFIX}REGISTRY__PASSWORD_FILE`: both or none.
"""
CONSUMER_INTRO = f"""# Settings of a consumer

`drx-consumer` reads its settings once, at start. The environment overrides the TOML file named by
`{config_variable(ConsumerSettings)}`, and the file overrides the defaults. `__` separates the levels; the same names
in lower case are the keys in TOML. Every installed consumer also has a section, whose values are strings. The
last line of this file is `CONSUMER_READ_MODEL__SCHEMA` in the environment:

```toml
[kafka]
bootstrap_servers = "broker-1:9092,broker-2:9092"

[postgres]
dsn_file = "/etc/drx-consumer/dsn"

[read_model]
schema = "read_model"
```

With an unknown name or a value out of bounds the process exits with code 2 and one line that names the setting. Empty
variables, and names with too few underscores, are read as by `drx-bridge` ([settings](settings.md)). A DSN may contain
a password and is never shown; prefer `DSN_FILE`. The operator's commands (`init`, `lag`, `parked`) read the same
settings.

One of `{CONSUMER}POSTGRES__DSN` and `{CONSUMER}POSTGRES__DSN_FILE` is needed.
"""
SHARED = f"""
## As for the ingress

[Settings](settings.md) has these under the same names with `{PREFIX}`; they depend on each other in the same way:

"""
OF_SEVERAL = """
## Of several consumers

Settings of only one consumer are on its page:
[archive](../consumers/archive/README.md#settings-consumer_archive__),
[fhir](../consumers/fhir/README.md#settings-consumer_fhir__),
[forward](../consumers/forward/README.md#settings-consumer_forward__),
[hl7v2](../consumers/hl7v2/README.md#settings-consumer_hl7v2__),
[read_model](../consumers/read_model/README.md#settings-consumer_read_model__),
[workflow](../consumers/workflow/README.md#settings-consumer_workflow__).

| key | default: consumers | meaning |
|---|---|---|
"""
# Settings to decide before the first event.
NEEDED = {
    "KAFKA__BOOTSTRAP_SERVERS",
    "KAFKA__SECURITY_PROTOCOL",
    "KAFKA__SASL_MECHANISM",
    "KAFKA__SASL_USERNAME_FILE",
    "KAFKA__SASL_PASSWORD_FILE",
    "KAFKA__SSL_CAFILE",
    "REGISTRY__URL",
    "POSTGRES__DSN_FILE",
    "HTTP__TLS_IN_FRONT",
    f"SOURCES__{NAME}__PROFILE",
    f"SOURCES__{NAME}__ENVIRONMENT",
    f"SOURCES__{NAME}__SECRETS_DIR",
    f"SOURCES__{NAME}__SCHEME",
    f"SOURCES__{NAME}__OPTIONS",
    "SPOOL__DIR",
    "SPOOL__CAPACITY_BYTES",
    "SPOOL__KEY_DIR",
    "LOG__ID_KEY_DIR",
}
_HEADER = "| variable | type | default | bounds | meaning |\n|---|---|---|---|---|"
_WORDS = {
    "boolean": "true or false",
    "integer": "integer",
    "number": "number",
    "object": "JSON object",
    "string": "string",
}
_BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "minLength": "at least {} character"}


def settings_page() -> str:
    """Return the page of the bridge."""
    return INTRO + _tables(_all_rows(Settings))


def consumer_settings_page() -> str:
    """Return the page of consumers: settings that differ from the ingress, and those of several consumers."""
    bridge = {row.removeprefix(f"| `{PREFIX}") for _, row in _all_rows(Settings)}
    rows = dict(_all_rows(ConsumerSettings))
    own = {name: row for name, row in rows.items() if row.removeprefix(f"| `{CONSUMER}") not in bridge}
    shared = ", ".join(f"`{CONSUMER}{name}`" for name in rows if name not in own)
    several = "".join(
        f"| `{key}` | {'; '.join(f'{default}: {names}' for default, names in defaults.items())} | {meaning} |\n"
        for (key, meaning), defaults in shared_options().items()
    )
    return CONSUMER_INTRO + _tables(own.items()) + SHARED + fill(shared, 118) + ".\n" + OF_SEVERAL + several


def all_variables(model: type[FileSettings]) -> set[str]:
    """Return the names of all variables."""
    return {f"{prefix_of(model)}{name}" for name, _ in _all_rows(model)}


def options_of(consumer: str) -> type[Options]:
    """Return the model of a shipped consumer's settings."""
    module = import_module(f"consumers.{consumer}.options")
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Options) and value.__module__ == module.__name__
    )
    return found


def shared_options() -> dict[tuple[str, str], dict[str, str]]:
    """Return the settings of several consumers: key and meaning, then each default with its consumers."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for folder in folders():
        for name, info in options_of(folder.name).model_fields.items():
            if info.description is not None:  # what one has alone is described on its page
                key = (info.alias or name).upper(), info.description
                defaults, default = found.setdefault(key, {}), _option_default(info.default)
                defaults[default] = ", ".join(filter(None, (defaults.get(default), folder.name)))
    return found


def _option_default(default: object) -> str:
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    return "unset" if default in {None, ""} else f"`{str(default).lower()}`"


def _tables(rows: Iterable[tuple[str, str]]) -> str:
    """Return the table of usual settings, and the table of the others."""
    needed: list[str] = []
    rarely: list[str] = []
    for name, row in rows:
        (needed if name in NEEDED else rarely).append(row)
    parts = (("Needed", needed), ("Rarely", rarely))
    return "".join(f"\n## {title}\n\n{_HEADER}\n" + "\n".join(rows) + "\n" for title, rows in parts)


def _all_rows(model: type[FileSettings]) -> Iterator[tuple[str, str]]:
    """Yield each setting's name without the prefix, and its row."""
    schema, prefix = model.model_json_schema(), prefix_of(model)
    for name, member in schema["properties"].items():
        target, path = _section(member, name.upper())
        section = {"properties": {"": member}} if target is None else schema["$defs"][target]
        for each, inside in section["properties"].items():
            full = f"{path}__{each.upper()}" if target else path
            if each == "scheme_parameters":  # each of which is set by its own name
                full = full.replace("_PARAMETERS", "_<PARAMETER>")
                inside |= {"type": "string", "default": None}
            yield full, _row(f"{prefix}{full}", inside, required=each in section.get("required", []))


def _section(member: Mapping[str, Any], path: str) -> tuple[str | None, str]:
    """Return the section of a member, and the variable's prefix; None for a plain setting."""
    if "$ref" in member:
        return _target(member["$ref"]), path
    inside = member.get("patternProperties") or {"": member.get("additionalProperties")}
    (each,) = inside.values()
    return (_target(each["$ref"]), f"{path}__{NAME}") if isinstance(each, dict) and "$ref" in each else (None, path)


def _target(reference: str) -> str:
    return reference.rsplit("/", 1)[1]


def _row(variable: str, member: Mapping[str, Any], *, required: bool) -> str:
    kinds = [kind for kind in member.get("anyOf", [member]) if kind.get("type") != "null"]
    (kind,) = kinds
    default = "**required**" if required else _default(member)
    return f"| `{variable}` | {_type(kind)} | {default} | {_bounds(kind)} | {member.get('description', '')} |"


def _type(kind: Mapping[str, Any]) -> str:
    if "enum" in kind:
        return ", ".join(f"`{word}`" for word in kind["enum"])
    if "const" in kind:
        return f"`{kind['const']}`"
    return "path" if kind.get("format") == "path" else _WORDS[kind["type"]]


def _default(member: Mapping[str, Any]) -> str:
    if "default" not in member:
        return "the host's name"
    default = member["default"]
    return "unset" if default is None or default == {} else f"`{default}`"


def _bounds(kind: Mapping[str, Any]) -> str:
    said = [text.format(kind[word]) for word, text in _BOUNDS.items() if word in kind]
    if "pattern" in kind:
        said.append(f"`{kind['pattern'].replace('|', chr(92) + '|')}`")
    return ", ".join(said)
