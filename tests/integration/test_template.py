"""A consumer of one's own in ten minutes: what the page tells is what `new` makes, and it installs, passes and runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumers.cli import COMMANDS
from consumers.commands.new import render
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.service_process import until
from tests.postgres import execute
from tests.topic_filler import Lives, fill

PAGE = (Path(__file__).parents[2] / "docs" / "write-a-consumer.md").read_text()
# The page's own code; what is between is the shell's.
SHOWN = re.findall(r"```(?:python|toml|sql)\n(.*?)```", PAGE, re.DOTALL)
LIVES = Lives(30)


def test_the_code_of_the_page_is_the_template() -> None:
    documents = render("refill-desk")

    whole = {path: text for path, text in documents.items() if not path.endswith("__init__.py")}
    assert sorted(SHOWN) == sorted(whole.values())


def test_the_handler_is_short() -> None:
    """The promise of the page: under 20 lines."""
    code = render("refill-desk")["refill_desk/consumer.py"]

    _, _, consumer = code.partition("consumer = ")
    assert len([line for line in consumer.splitlines() if line.strip()]) < 20


def test_the_page_names_commands_that_exist() -> None:
    assert set(re.findall(r"drx-consumer ([a-z]+)", PAGE)) <= set(COMMANDS)


@dataclass(frozen=True, slots=True)
class Package:
    """A package that was made, installed, and not touched."""

    name: str
    home: Path
    env: dict[str, str]

    @property
    def module(self) -> str:
        """What it is imported as."""
        return self.name.replace("-", "_")


@pytest.fixture
def package(tmp_path: Path, topics: Topics, cluster: Cluster, postgres: str) -> Package:
    """Make one under a name that no other test has, and install it without a network."""
    name = topics.unique_key("desk")
    env = consumer_environment(
        bootstrap_servers=cluster.bootstrap_servers,
        dsn=postgres,
        env={"PYTHONPATH": str(tmp_path / "installed")},
        KAFKA__OFFSET_RESET="none",
    )
    _run(env, "-m", "consumers", "new", name, "--dir", str(tmp_path))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(tmp_path / "installed")]
    _run(env, "-m", "pip", "--disable-pip-version-check", "install", *options, str(tmp_path / name))
    return Package(name, tmp_path / name, env)


@pytest.mark.kafka
async def test_a_package_that_was_just_made_passes_its_test_and_consumes(
    package: Package, cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path
) -> None:
    topics.standard()
    _run(package.env, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package.home))
    code, _, err = await drx_consumer(package.env, "init", package.name, "--from", "latest")
    assert code == 0, err

    fill(cluster.bootstrap_servers, LIVES.records())
    settings = {name.removeprefix("CONSUMER_"): value for name, value in package.env.items() if "CONSUMER_" in name}
    with ConsumerProcess(
        tmp_path,
        package.name,
        bootstrap_servers=settings.pop("KAFKA__BOOTSTRAP_SERVERS"),
        dsn=settings.pop("POSTGRES__DSN"),
        env=package.env,
        **settings,
    ) as desk:
        desk.ready()
        noted = f"select event_id from {package.module}.noted"  # noqa: S608 - our own name
        wanted = set(_renewals())
        until(lambda: {event_id for (event_id,) in execute(postgres, noted)[0]} >= wanted, what="every renewal noted")
        code = await desk.end()

    assert code == 0
    assert wanted


def _renewals() -> Iterator[str]:
    for number in range(LIVES.prescriptions):
        yield from (event.id for event in LIVES.events(number) if event.type.startswith("renewal."))


def _run(env: dict[str, str], *arguments: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, *arguments], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
