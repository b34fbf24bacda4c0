"""The page of the commands, from the command lines."""
# ruff: noqa: INP001 - a script next to its pages, not a package

from collections.abc import Iterator, Mapping

import click

from bridge.cli import SECTIONS as BRIDGE
from bridge.cli import cli as bridge
from bridge.runtime.process import Group
from consumers.cli import SECTIONS as CONSUMERS
from consumers.cli import cli as consumers

_Sections = Mapping[str, Mapping[str, tuple[str, str]]]
_HEAD = """# Commands

`--help` of a command shows its options. `make docs` renders this page, with all options, in `build/site`.
"""


def commands_page() -> str:
    """Return the page: tables in the order of an operator's work, then the place of the options."""
    tables = ("\n".join(_table("drx-bridge", bridge, BRIDGE)), "\n".join(_table("drx-consumer", consumers, CONSUMERS)))
    return "\n\n".join(
        [_HEAD.strip(), *tables, _options("bridge", "drx-bridge"), _options("consumers", "drx-consumer")]
    )


def _table(program: str, group: Group, sections: _Sections) -> Iterator[str]:
    yield f"| | `{program}` | |\n|---|---|---|"
    for heading, commands in sections.items():
        for number, (name, (_, line)) in enumerate(commands.items()):
            command = group.load(name)
            verbs = command.list_commands(click.Context(command)) if isinstance(command, click.Group) else []
            called = " ".join(filter(None, (name, r"\|".join(verbs))))
            yield f"| {'' if number else f'**{heading}**'} | `{called}` | {line} |"


def _options(package: str, program: str) -> str:
    return f"""\
::: mkdocs-click
    :module: {package}.cli
    :command: cli
    :prog_name: {program}
    :depth: 1
    :style: plain
    :list_subcommands: True
"""
