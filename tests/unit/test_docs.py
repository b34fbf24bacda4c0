"""The reference pages under `docs` are what the code says, and hold together."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own
from prometheus_client import CollectorRegistry

from bridge.cli import COMMANDS
from bridge.commands.codes import PARKED, REFUSALS, UNAVAILABLE
from bridge.ingress.observations import PARK_REASONS
from bridge.ingress.routes import REFUSAL_STATUS, STATUS
from bridge.runtime.metrics import IngressMetrics
from bridge.settings import Settings, load_settings
from consumers.runtime.metrics import ConsumerMetrics
from consumers.settings import load_settings as load_consumer_settings
from docs.generate import COMMAND, HERE, PAGES

ROOT = HERE.parent
PROSE = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted(
    HERE.glob("adr/*.md")
)
PROSE += [HERE / name for name in ("guarantees.md", "senders.md", "readers.md", "spool.md")]
# A file that a page has its reader keep, under its name.
MADE = re.compile(r"<!-- (?:runs|file): ([\w.]+) -->")
OF_CONSUMERS = sorted(ROOT.glob("consumers/*/README.md"))
PAGES_THAT_RUN = [ROOT / "README.md", *sorted(HERE.rglob("*.md")), *OF_CONSUMERS]
LINKING = [
    ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "helm/drx-bridge/README.md")
]
LINKING += [*sorted(HERE.rglob("*.md")), *OF_CONSUMERS]
TREE = ("bridge", "consumers", "docs", "tests")
# These name files that their reader writes.
OF_THE_READER = {"engines.md", "senders.md", "readers.md", "write-a-consumer.md"}
METRICS = {*vars(IngressMetrics(CollectorRegistry())), *vars(ConsumerMetrics(CollectorRegistry(), service="desk"))}


@cache
def document(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((HERE / name).read_text(), Loader=yaml.CSafeLoader)
    return loaded


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    assert (HERE / name).read_text(encoding="utf-8") == PAGES[name](), f"run `{COMMAND}` and commit docs/{name}"


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_a_page_for_people_points_to_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert set(re.findall(r"drx-bridge ([a-z]+)(?= |`|$)", text, re.MULTILINE)) <= set(COMMANDS)
    assert set(re.findall(r"BRIDGE_([A-Z]+)__", text)) <= {name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"drxbridge_(\w+?)(?:_total)?\b", text)) <= METRICS


def anchors(page: Path) -> set[str]:
    """Return what GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(\s*(?!https:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8"))

    targets = [(page.parent / file if file else page, anchor) for file, anchor in links]
    assert [file for file, _ in targets if not file.exists()] == []
    assert [(file.name, anchor) for file, anchor in targets if anchor and anchor not in anchors(file)] == []


@pytest.mark.parametrize(
    "page", [page for page in LINKING if page.name not in OF_THE_READER], ids=lambda page: page.stem
)
def test_a_page_names_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    named = re.findall(r"`((?:[\w.-]+/)*\w+\.py|(?:bridge|consumers|tests)/[\w/]+)(?:::\w+)?`", text)
    there = [f"/{path.relative_to(ROOT)}" for each in TREE for path in (ROOT / each).rglob("*")]
    assert [each for each in named if not any(path.endswith(f"/{each.rstrip('/')}") for path in there)] == []


@pytest.mark.parametrize(("page", "variable"), [("settings.md", "BRIDGE"), ("consumer-settings.md", "CONSUMER")])
def test_the_example_of_a_settings_file_is_one(
    page: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text((HERE / page).read_text().split("```toml\n")[1].split("```")[0])
    monkeypatch.setenv(f"{variable}_CONFIG", str(file))

    if variable == "BRIDGE":
        assert load_settings().sources["drx"].environment == "production"
    else:
        assert load_consumer_settings(["read_model"]).options("read_model") == {"schema": "read_model"}


def test_openapi_tells_every_answer_and_code() -> None:
    whole = document("openapi.yaml")
    answers = whole["paths"]["/webhooks/{source}"]["post"]["responses"]

    assert set(answers) == {"200", "202", "500", "503", *map(str, REFUSAL_STATUS.values())}
    assert set(map(str, STATUS.values())) <= set(answers)
    for code, status in REFUSAL_STATUS.items():
        assert f"`{code}`" in answers[str(status)]["description"]
    assert set(REFUSALS) == set(REFUSAL_STATUS)
    assert set(PARKED) == set(PARK_REASONS)


def test_openapi_knows_every_code_that_the_source_can_answer_with_503() -> None:
    """They are raised in many places and never listed in one, so the source itself is looked through."""
    source = "".join(path.read_text() for path in (ROOT / "bridge").rglob("*.py"))
    raised = re.findall(
        r'(?:NotDurableError\(|_unavailable\(request, |\.fail\((?:\w+, )?|(?:return|else) (?="spool_)|Error: )"(\w+)"',
        source,
    )

    named = {"deadline", "admission_full", "unexpected", "record_too_large", "spool_full", "spool_unavailable"}
    assert named <= set(raised) <= set(UNAVAILABLE)


def test_what_a_reader_makes_beside_the_code_is_ignored() -> None:
    """Secrets, too: a page that has a reader make one in the clone must not have it committed."""
    made = {name for page in PAGES_THAT_RUN for name in MADE.findall(page.read_text(encoding="utf-8"))}
    ignored = (ROOT / ".gitignore").read_text().splitlines()

    assert made >= {"sign.py", "state.json", "bridge.toml"}
    assert {f"/{name}" for name in made} <= set(ignored)
    assert {"/stack/", "/secrets-*/", "/spool-*/", "/delivery.json", "/signed.txt", "/serve.log"} <= set(ignored)
