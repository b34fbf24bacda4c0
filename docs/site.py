"""What the site of the documentation needs beyond MkDocs: pages that stand elsewhere, and links to them."""
# ruff: noqa: INP001 - a script beside its pages, no package

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files  # type: ignore[import-not-found,unused-ignore]  # by `make docs`

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Pages of the site that stand outside `docs/`.
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
    """Add the pages that stand elsewhere."""
    for path, name in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Have each link lead to the page on the site; what is not on it keeps its name only."""
    source = Path(page.file.abs_src_path)
    return _LINK.sub(lambda link: _on_site(link, source, page.file.src_uri), markdown)


def _on_site(link: re.Match[str], source: Path, uri: str) -> str:
    text, path, anchor = link.groups()
    target = Path(os.path.normpath(source.parent / path))
    if target in ELSEWHERE:
        name = ELSEWHERE[target]
    elif target.is_relative_to(DOCS) and target.is_file():
        name = str(target.relative_to(DOCS))
    else:
        return text
    return f"[{text}]({os.path.relpath(name, Path(uri).parent)}{anchor or ''})"
