"""What dashboards and pages have people ask, asked of a running installation."""

import asyncio
import math
import re
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tests.builders import a_body, signed_headers
from tests.faults.alerts.site import EVENTS, Site
from tests.integration.service_process import HANG_S
from tests.monitoring.queries import RUNBOOKS, Query, blocks, queries

# Commands that only look: the others would change what the next one sees, and have tests of their own.
_LOOKING = (
    "drx-bridge config",
    "drx-bridge doctor",
    "drx-bridge spool status",
    "drx-bridge spool verify",
    "drx-bridge tail",
    "drx-bridge topics check",
    "drx-bridge verify",
    "drx-consumer lag",
    "drx-consumer parked list",
    "drx-consumer parked show",
)
# Consumers that the installation does not have; its `desk` publishes nothing.
_ABSENT = "(archive|fhir|forward|hl7v2|outbox|workflow)"
_UNASKED, _NOT_RUN = re.compile(f"drxbridge_{_ABSENT}_"), re.compile(rf"\b{_ABSENT}\b")
_MODULES = {"drx-bridge": "bridge", "drx-consumer": "consumers"}


class Done(NamedTuple):
    code: int
    said: str


def asked() -> dict[str, list[str]]:
    """Return the queries by the dashboard or the page that they are on."""
    found = [each for each in queries() if re.search(r"\.(md|json)", each.where) and not _UNASKED.search(each.text)]
    return {place: [each.text for each in some] for place, some in groupby(found, key=_place)}


def unanswered(site: Site, texts: Iterable[str]) -> list[str]:
    """Return the queries to which there was no answer at any time, not even zero."""
    now = time.time()
    return [text for text in texts if not _numbers(site.prometheus.series(text, since=site.began, until=now))]


def commands() -> list[str]:
    """Return every command of a page that only looks, once."""
    lines = [line for page in RUNBOOKS for block in blocks(page, "sh") for line in block.strip().split("\n")]
    return sorted({line for line in lines if line.startswith(_LOOKING) and not _NOT_RUN.search(line)})


def run(site: Site, line: str, *, key: str, directory: Path) -> Done:
    """Run a command in the environment of the process that it is about, with real values for the words in capitals."""
    program, *arguments = shlex.split(line)
    env = site.ingress.env if program == "drx-bridge" else site.reader.env
    words = {"KEY": key, "TOPIC": EVENTS, "NAME": "read_model", **_a_delivery(site, directory)}
    return asyncio.run(_run(_MODULES[program], [words.get(each, each) for each in arguments], env, directory))


def _place(query: Query) -> str:
    return query.where.partition(":")[0]


def _numbers(series: Sequence[Sequence[float]]) -> list[float]:
    return [value for values in series for value in values if not math.isnan(value)]


def _a_delivery(site: Site, directory: Path) -> dict[str, str]:
    body = a_body()
    (directory / "delivery.json").write_bytes(body)
    headers = signed_headers(body)
    return {
        "SECRETS": str(site.ingress.secrets_dir),
        "ID": headers["webhook-id"],
        "TIMESTAMP": headers["webhook-timestamp"],
        "SIGNATURE": headers["webhook-signature"],
    }


async def _run(module: str, arguments: Sequence[str], env: Mapping[str, str], directory: Path) -> Done:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        env=dict(env),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(HANG_S):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode())
