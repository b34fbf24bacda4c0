"""The reference pages under `docs` match the code, and their links work."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own
from prometheus_client import CollectorRegistry

from bridge import response_codes
from bridge.cli import COMMANDS
from bridge.commands.log import logged_deliveries
from bridge.ingress.responses import Observations
from bridge.runtime.metrics import IngressMetrics
from bridge.settings import Settings, load_settings
from consumers.runtime.metrics import ConsumerMetrics
from consumers.settings import load_settings as load_consumer_settings
from docs.generate import COMMAND, HERE, PAGES
from docs.metrics_page import contract
from docs.openapi import openapi
from docs.senders_page import senders

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


def series(observed: IngressMetrics) -> str:
    return str([sample.labels for family in observed.registry.collect() for sample in family.samples])


def test_a_word_that_is_added_to_the_answers_appears_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the OpenAPI, the contract of the metrics, the page for senders, the series and what `log` prints."""
    monkeypatch.setitem(
        response_codes.REFUSED, "refused_anew", response_codes.Refusal(418, "a new refusal", "proved_anew")
    )
    monkeypatch.setitem(response_codes.PARKED, "parked_anew", "a new reason")
    monkeypatch.setitem(response_codes.UNAVAILABLE, "away_anew", "a new absence")
    metrics = IngressMetrics(CollectorRegistry())
    Observations(metrics, sources=["drx"], deadline_s=1)
    lines = [
        orjson.dumps({"event": f"delivery.{outcome}", "code": f"{word}_anew"})
        for outcome, word in (("refused", "refused"), ("parked", "parked"), ("unavailable", "away"))
    ]
    api, page = openapi(), senders()

    assert "refused_anew" in api["paths"]["/webhooks/{source}"]["post"]["responses"]["418"]["description"]
    for word, sentence in (
        ("refused_anew", "a new refusal"),
        ("parked_anew", "a new reason"),
        ("away_anew", "a new absence"),
    ):
        assert f"`{word}`: {sentence}" in str(api)
        assert word in str(contract()["sets"])
        assert word in series(metrics)
        assert f"| `{word}` | {sentence} |" in page
    assert "proved_anew" in series(metrics)
    assert "proved_anew" in contract()["sets"]["proof"]
    assert [each.meaning for each in logged_deliveries(lines)] == ["a new refusal", "a new reason", "a new absence"]


def test_every_code_that_the_source_can_answer_with_is_in_the_table() -> None:
    """They are raised in many places, so the source itself is looked through."""
    source = "".join(path.read_text() for path in (ROOT / "bridge").rglob("*.py"))
    unavailable = re.findall(
        r'(?:NotDurableError\(|_unavailable\(request, |\.fail\((?:\w+, )?|(?:return|else) (?="spool_)|Error: )"(\w+)"',
        source,
    )
    refused = re.findall(r'(?:refuse|DeliveryRefusedError)\("(\w+)"', source)
    parked = re.findall(r'ParkReason\("(\w+)"', source)

    named = {"deadline", "admission_full", "unexpected", "record_too_large", "spool_full", "spool_unavailable"}
    assert named <= set(unavailable) <= set(response_codes.UNAVAILABLE)
    assert set(refused) == set(response_codes.REFUSED)
    assert set(parked) == set(response_codes.PARKED)
    operations = document("openapi.yaml")["paths"]["/webhooks/{source}"]
    assert operations.keys() == {"get", "options", "post"}
    assert set(map(str, response_codes.STATUS.values())) <= set(operations["post"]["responses"])


def test_what_a_reader_makes_beside_the_code_is_ignored() -> None:
    """Secrets, too: a page that has a reader make one in the clone must not have it committed."""
    made = {name for page in PAGES_THAT_RUN for name in MADE.findall(page.read_text(encoding="utf-8"))}
    ignored = (ROOT / ".gitignore").read_text().splitlines()

    assert made >= {"sign.py", "state.json", "bridge.toml"}
    assert {f"/{name}" for name in made} <= set(ignored)
    assert {"/stack/", "/secrets-*/", "/spool-*/", "/delivery.json", "/signed.txt", "/serve.log"} <= set(ignored)
