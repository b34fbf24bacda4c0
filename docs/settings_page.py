"""The reference of every setting, from the model that reads them."""
# ruff: noqa: INP001 - a script beside its pages, no package

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bridge.runtime.configuration import config_variable
from bridge.settings import PREFIX, Settings

# A source is named by the operator, so its settings have a place for the name.
NAME = "<NAME>"
FILE = config_variable(Settings)
INTRO = f"""# Settings

`drx-bridge` reads its settings once, at the start. The environment wins over the TOML file that `{FILE}`
names, and the file over the defaults. `__` separates the levels; the same names in lower case are the keys in TOML:

```toml
[http]
port = 8080

[sources.drx]
profile = "drx_standard"
environment = "production"
secrets_dir = "/etc/drx-bridge/secrets/drx"
```

An unknown name or a value out of bounds ends the start with exit code 2 and one line that names the setting.
`drx-bridge config` shows the values in force, `drx-bridge doctor` whether one can work with them. Lists and tables
(`{PREFIX}KAFKA__ROUTES`) are JSON in the environment. No setting holds a secret: those with `FILE` or `DIR` in their
name say where it is.

Names that depend on each other:

- `{PREFIX}HTTP__DEADLINE_S` < `{PREFIX}SHUTDOWN__DRAIN_S`: a stop must not cut off an answer;
- `{PREFIX}SHUTDOWN__DRAIN_S` + `{PREFIX}SHUTDOWN__FLUSH_S` < `{PREFIX}SHUTDOWN__GRACE_S`: or the pod is killed first;
- with `SASL_…` as `{PREFIX}KAFKA__SECURITY_PROTOCOL`, the mechanism and both files; with another, none of them;
- `{PREFIX}REGISTRY__USERNAME_FILE` and `{PREFIX}REGISTRY__PASSWORD_FILE`: both or none.
"""
_HEADER = "| variable | type | default | bounds | meaning |\n|---|---|---|---|---|"
_BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "minLength": "at least {} character"}


def settings_page() -> str:
    """Return the page: one table per section."""
    schema = Settings.model_json_schema()
    tables: list[tuple[str, str, list[str]]] = [("Process", "This process among its replicas.", [])]
    for name, member in schema["properties"].items():
        target, path = _section(member, f"{PREFIX}{name.upper()}")
        if target is None:
            tables[0][2].append(_row(f"{PREFIX}{name.upper()}", member, required=False))
            continue
        section = schema["$defs"][target]
        rows = list(_rows(section, path))
        tables.append((name.capitalize(), section["description"], rows))
    parts = [f"\n## {title}\n\n{text}\n\n{_HEADER}\n" + "\n".join(rows) + "\n" for title, text, rows in tables]
    return INTRO + "".join(parts)


def _section(member: Mapping[str, Any], path: str) -> tuple[str | None, str]:
    """Return the section that a member holds, and the variable's beginning; None for a plain setting."""
    if "$ref" in member:
        return _target(member["$ref"]), path
    inside = member.get("patternProperties") or {"": member.get("additionalProperties")}
    (each,) = inside.values()
    return (_target(each["$ref"]), f"{path}__{NAME}") if isinstance(each, dict) and "$ref" in each else (None, path)


def _target(reference: str) -> str:
    return reference.rsplit("/", 1)[1]


def _rows(section: Mapping[str, Any], path: str) -> Iterator[str]:
    required = section.get("required", [])
    for name, member in section["properties"].items():
        yield _row(f"{path}__{name.upper()}", member, required=name in required)


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
    words = {"integer": "integer", "number": "number", "object": "JSON object", "string": "text"}
    return "path" if kind.get("format") == "path" else words[kind["type"]]


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
