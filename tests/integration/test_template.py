"""The page about consumers equals the package of `drx-consumer new`, which installs, passes its tests and runs."""

import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from bridge.contract.events import EVENT_MODELS
from consumers import http
from consumers.cli import COMMANDS
from consumers.commands.new import render
from consumers.testing import running
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.phi_documents import Marker
from tests.integration.service_process import until
from tests.postgres import execute
from tests.prescriptions import native
from tests.topic_filler import Lives, fill

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "write-a-consumer.md").read_text()
NOTICES = (DOCS / "notices.md").read_text()
# The code of the package on the page; what is between is the shell's. A comment names each further example.
SHOWN = re.findall(r"(?<!-->\n)```(?:python|toml|sql)\n(.*?)```", PAGE, re.DOTALL)
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", PAGE + NOTICES, re.DOTALL))
LIVES = Lives(30)


def test_the_code_of_the_page_is_the_template() -> None:
    documents = render("refill-desk")

    shown = (".py", ".toml", ".sql")
    whole = {path: text for path, text in documents.items() if path.endswith(shown) and "__init__" not in path}
    assert sorted(SHOWN) == sorted(whole.values())


def test_it_has_what_a_team_ships_and_names_nothing_that_is_not_there() -> None:
    documents = render("refill-desk")

    assert {"README.md", "Dockerfile", "values.yaml"} <= set(documents)
    assert not [path for path, text in documents.items() if "{{" in text]
    assert "discloses=[" in documents["refill_desk/consumer.py"]  # or `doctor` would warn of it
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", documents["Dockerfile"], re.MULTILINE)
    assert {source.split("/")[0] for sources in copied for source in sources.split()} <= {
        path.split("/")[0] for path in documents
    }
    assert set(re.findall(r"drx-consumer (\w+)", documents["README.md"])) <= set(COMMANDS)


def shown_test(name: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    module = types.ModuleType(f"{name}.consumer")
    vars(module).update(example(name))
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, f"{name}.consumer", module)
    (code,) = re.findall(rf"<!-- test: {name} -->\n```python\n(.*?)```", PAGE + NOTICES, re.DOTALL)
    names: dict[str, Any] = {"__name__": f"test_{name}"}
    exec(compile(code, f"<test {name}>", "exec", dont_inherit=True), names)  # noqa: S102 - our own page
    (found,) = (each for title, each in names.items() if title.startswith("test_"))
    return cast("Callable[..., None]", found)


def test_the_tests_of_calling_a_service_and_of_the_topic_without_health_information_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown_test("courier", monkeypatch)()
    shown_test("notices", monkeypatch)(tmp_path)


async def test_a_notice_has_nothing_of_what_may_be_health_information(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 32)
    marker = Marker()
    marked = [marker.document(each, event_id=f"evt_{number}") for number, each in enumerate(EVENT_MODELS)]
    options = {"key_file": str(tmp_path / "key")}
    async with running(example("notices")["open_notices"], options=options) as desk:
        await desk.feed(*(native(orjson.dumps(each.document)) for each in marked))

        published = await desk.published()
    assert len(published) == len(EVENT_MODELS)
    assert not [text for each in marked for text in each.markers.values() if text in repr(published)]


def test_the_page_says_what_each_answer_means() -> None:
    rows = [line for line in (http.__doc__ or "").splitlines() if line.startswith("|")]

    assert rows
    assert "\n".join(rows) in PAGE


def test_the_test_of_all_together_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "refill_desk" / "migrations").mkdir(parents=True)
    for path, text in render("refill-desk").items():
        if path.endswith((".sql", "__init__.py")):
            (tmp_path / path).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    shown_test("together", monkeypatch)()


def example(name: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": name}
    exec(compile(EXAMPLES[name], f"<example {name}>", "exec", dont_inherit=True), names)  # noqa: S102 - our own page
    return names


@pytest.mark.kafka
async def test_a_package_that_was_just_made_passes_its_test_and_consumes(
    cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path
) -> None:
    """It is installed without a network, under a name that no other test has."""
    topics.standard()
    name, installed = topics.unique_key("desk"), tmp_path / "installed"
    given: dict[str, Any] = {
        "bootstrap_servers": cluster.bootstrap_servers,
        "dsn": postgres,
        "env": {"PYTHONPATH": str(installed)},
        "KAFKA__OFFSET_RESET": "none",
    }
    env = consumer_environment(**given)
    _run(env, "-m", "consumers", "new", name, "--dir", str(tmp_path))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(installed)]
    _run(env, "-m", "pip", "--disable-pip-version-check", "install", *options, str(tmp_path / name))
    _run(env, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / name))
    code, _, err = await drx_consumer(env, "init", name, "--from", "latest")
    assert code == 0, err

    fill(cluster.bootstrap_servers, LIVES.records())
    with ConsumerProcess(tmp_path, name, **given) as desk:
        desk.ready()
        noted = f"select event_id from {name.replace('-', '_')}.noted"  # noqa: S608 - our own name
        events = (event for number in range(LIVES.prescriptions) for event in LIVES.events(number))
        wanted = {event.id for event in events if event.type.startswith("renewal.")}
        until(lambda: {event_id for (event_id,) in execute(postgres, noted)[0]} >= wanted, what="every renewal noted")
        assert await desk.end() == 0

    assert wanted


def _run(env: dict[str, str], *arguments: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, *arguments], env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
