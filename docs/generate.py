"""Write the reference pages from the code: `python docs/generate.py`; with `--check`, only report differences."""
# ruff: noqa: INP001 - a script next to its pages, not a package

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

HERE = Path(__file__).parent
if str(HERE.parent) not in sys.path:  # run as a script, only this folder is on the path
    sys.path.insert(0, str(HERE.parent))

from docs.archive_page import archive_page  # noqa: E402 - after the path
from docs.asyncapi import asyncapi  # noqa: E402 - as above
from docs.capacity import capacity  # noqa: E402 - as above
from docs.chart_page import chart_readme, chart_schema, chart_values  # noqa: E402 - as above
from docs.commands_page import commands_page  # noqa: E402 - as above
from docs.events_page import events_page  # noqa: E402 - as above
from docs.metrics_page import metrics_page  # noqa: E402 - as above
from docs.monitoring import rule_files, sinks  # noqa: E402 - as above
from docs.openapi import openapi  # noqa: E402 - as above
from docs.senders_page import senders  # noqa: E402 - as above
from docs.settings_page import consumer_settings_page, settings_page  # noqa: E402 - as above

COMMAND = "python docs/generate.py"
NOTE = f"Generated from the code by `{COMMAND}`; do not edit."
WIDTH = 116  # of the YAML, so that a diff fits a screen


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # as above
    """Writes strings of several lines as blocks, and no anchors."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _text(dumper: Any, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(document: Mapping[str, Any]) -> str:
    text: str = yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
    return f"# {NOTE}\n{text}"


PAGES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "settings.md": lambda: f"<!-- {NOTE} -->\n{settings_page()}",
        "consumer-settings.md": lambda: f"<!-- {NOTE} -->\n{consumer_settings_page()}",
        "metrics.md": lambda: f"<!-- {NOTE} -->\n{metrics_page()}",
        "events.md": lambda: f"<!-- {NOTE} -->\n{events_page()}",
        "commands.md": lambda: f"<!-- {NOTE} -->\n{commands_page()}",
        "openapi.yaml": lambda: _yaml(openapi()),
        "asyncapi.yaml": lambda: _yaml(asyncapi()),
        **{f"../helm/drx-bridge/files/rules/{name}": partial(str, text) for name, text in rule_files().items()},
        "../helm/drx-bridge/files/dashboards/sinks.json": sinks,
        "../helm/drx-bridge/values.yaml": chart_values,
        "../helm/drx-bridge/values.schema.json": chart_schema,
        "../helm/drx-bridge/README.md": chart_readme,
        "operations.md": capacity,
        "senders.md": senders,
        "../consumers/archive/README.md": archive_page,
    }
)
"""File name to the function that generates it."""


def outdated() -> list[str]:
    """Return the pages that differ from the code."""
    return [name for name, page in PAGES.items() if not _stands(HERE / name, page())]


def _stands(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def main(arguments: list[str]) -> int:
    """Write or check the pages; exit 1 if a checked page differs."""
    if arguments == ["--check"]:
        found = outdated()
        for name in found:
            sys.stderr.write(f"docs/{name} is out of date; run `{COMMAND}`\n")
        return int(bool(found))
    if arguments:
        sys.stderr.write(f"usage: {COMMAND} [--check]\n")
        return 2
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
