"""Hooks of MkDocs: pages outside `docs/`, and links to them."""
# ruff: noqa: INP001 - a script next to its pages, not a package

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError  # type: ignore[import-not-found,unused-ignore]  # by `make docs`
from mkdocs.structure.files import File, Files  # type: ignore[import-not-found,unused-ignore]  # as above

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Pages of the site that are outside `docs/`.
ELSEWHERE = {
    ROOT / "README.md": "overview.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "helm" / "drx-bridge" / "README.md": "chart.md",
}
CONSUMERS = {path: f"{path.parent.name.replace('_', '-')}.md" for path in sorted(ROOT.glob("consumers/*/README.md"))}
ELSEWHERE |= CONSUMERS
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Add the pages of the consumers to the navigation."""
    (subscribers,) = (each["Subscribers"] for each in config.nav if "Subscribers" in each)
    subscribers += CONSUMERS.values()
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages outside `docs/`."""
    for path, name in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: object) -> str:
    """Point links to the pages of the site; a link to a file outside the site becomes its name."""
    source = Path(page.file.abs_src_path)
    return _LINK.sub(lambda link: _on_site(link, source, page.file.src_uri, files), markdown)


def _on_site(link: re.Match[str], source: Path, uri: str, files: Files) -> str:
    text, path, anchor = link.groups()
    target = Path(os.path.normpath(source.parent / path))
    if not target.exists():
        raise PluginError(f"{source.relative_to(ROOT)} links to {path}, which does not exist")
    name = ELSEWHERE.get(target) or os.path.relpath(target, DOCS)
    file = files.get_file_from_path(name)
    if file is None or file.inclusion.is_excluded():
        return text
    if text in (path, target.name) and target.suffix == ".md":
        text = _title(target)
    return f"[{text}]({os.path.relpath(name, Path(uri).parent)}{anchor or ''})"


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("# ")[2].partition("\n")[0]
