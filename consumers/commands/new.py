"""`drx-consumer new`: write a package for a new consumer from the template."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path

import click

from bridge.errors import ConfigError
from consumers.commands.installed import installed
from consumers.postgres.migrate import check_schema
from consumers.settings import section

TEMPLATE = files("consumers") / "template"
SUFFIX = ".tmpl"
_word = re.compile(r"\{\{(\w+)\}\}")
OBJECT_NAME_MAX = 12  # longest key of `consumers` in the chart


@click.command()
@click.argument("name")
@click.option(
    "--dir", "parent", type=click.Path(file_okay=False, path_type=Path), default=".", help="Parent directory."
)
def new(*, name: str, parent: Path) -> int:
    """Generate a consumer: a package NAME that can be installed, tested, run and built into an image."""
    home = parent / name
    documents = render(name)
    refuse_taken(name)
    if home.exists():
        raise ConfigError(f"{home} already exists")
    for path, text in documents.items():
        target = home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    click.echo(f"{home} is ready; next: pip install -e {home}, drx-consumer init {name} --from earliest, run {name}")
    return 0


def refuse_taken(name: str) -> None:
    """Refuse a name of another consumer or Python module, or one that is invalid as a schema."""
    module = section(name)
    if taken := [each for each in installed() if section(each) == module]:
        raise ConfigError(f"a consumer named {taken[0]!r} is installed already; choose another name")
    if iskeyword(module) or find_spec(module) is not None:
        raise ConfigError(f"a package cannot be named {module!r}: Python has that name already; choose another")
    check_schema(module)


def render(name: str) -> dict[str, str]:
    """Return the files of a package by their paths."""
    module, known = section(name), version("drx-bridge")
    words = {"name": name, "module": module, "object": name[:OBJECT_NAME_MAX].rstrip("_-"), "version": known}
    return {
        path.replace("package/", f"{module}/").removesuffix(SUFFIX): _word.sub(lambda found: words[found[1]], text)
        for path, text in _texts(TEMPLATE, "")
    }


def _texts(directory: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for each in sorted(directory.iterdir(), key=lambda item: item.name):
        if each.is_dir():
            yield from _texts(each, f"{prefix}{each.name}/")
        elif each.name.endswith(SUFFIX):
            yield f"{prefix}{each.name}", each.read_text(encoding="utf-8")
