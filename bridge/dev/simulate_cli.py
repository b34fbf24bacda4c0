"""`drx-bridge simulate`: send deliveries as DRx does, and report what was answered."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridge.dev.generator import Outgoing, deliveries
from bridge.dev.simulator import Answer, RetryPolicy, Sender, Sign, play
from bridge.dev.simulator_input import arrange, read_sample, read_scenario
from bridge.dev.simulator_report import Tally
from bridge.dev.simulator_target import signer, webhook_url
from bridge.dev.story import Environment
from bridge.errors import ConfigError
from bridge.runtime.lifecycle import INTERRUPTED

DEFAULT_COUNT = 100
# Fewer deliveries are over before a bar could tell anything.
BAR_FROM = 20


@dataclass(frozen=True, slots=True)
class Run:
    """One invocation, checked: everything `_drive` needs to know."""

    url: str
    sign: Sign
    outgoings: Iterator[Outgoing]
    total: int | None
    rate: float | None
    concurrency: int
    policy: RetryPolicy
    rng: random.Random


@click.command()
@click.option("--url", required=True, help="The bridge, or the webhook itself; without a path /webhooks/drx is meant.")
@click.option(
    "--secret-file", required=True, type=click.Path(path_type=Path), help="File with whsec_… on its first line."
)
@click.option("--scenario", type=click.Path(path_type=Path), help="Send each line of this NDJSON file, in order.")
@click.option("--sample", type=click.Path(path_type=Path), help="Send this file's bytes, exactly, as one delivery.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Deliveries a second, on a fixed schedule; else in turn."
)
@click.option(
    "--count", type=click.IntRange(1), help=f"Generated deliveries, of all types; {DEFAULT_COUNT} unless said."
)
@click.option("--seed", type=int, help="Repeat an earlier run: same deliveries, same ids, same order. Random if unset.")
@click.option("--duplicates", type=click.FloatRange(0, 1), default=0.0, help="Probability of sending one once more.")
@click.option("--shuffle", is_flag=True, help="Send in random order.")
@click.option(
    "--environment", type=click.Choice(["sandbox", "production"]), default="sandbox", help="Of generated ones."
)
@click.option("--attempts", type=click.IntRange(1), default=8, show_default=True, help="Most attempts per delivery.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    default=15.0,
    show_default=True,
    help="Seconds to wait for an answer.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Most deliveries under way at one time when there is a --rate.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON document on standard output.")
def simulate(
    *,
    url: str,
    secret_file: Path,
    scenario: Path | None,
    sample: Path | None,
    rate: float | None,
    count: int | None,
    seed: int | None,
    duplicates: float,
    shuffle: bool,
    environment: Environment,
    attempts: int,
    timeout_s: float,
    concurrency: int,
    as_json: bool,
) -> int:
    """Sign and push deliveries as DRx does, retry as a sender does, and report what was answered.

    Without --scenario or --sample the deliveries are generated: plausible lives of prescriptions of people who do not
    exist. Without --rate each delivery waits for the answer to the one before. Exit 0 if every delivery was answered
    2xx, 1 if one was not.
    """
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    chosen, total = _choose(scenario, sample, count, seed=seed, environment=environment)
    run = Run(
        url=webhook_url(url),
        sign=signer(secret_file),
        outgoings=arrange(chosen, rng=_rng(seed), duplicates=duplicates, shuffle=shuffle),
        total=total if not duplicates else None,
        rate=rate,
        concurrency=1 if rate is None else concurrency,
        policy=RetryPolicy(attempts=attempts, timeout_s=timeout_s),
        rng=_rng(seed),
    )
    return _report(run, seed=seed, as_json=as_json)


def _choose(
    scenario: Path | None, sample: Path | None, count: int | None, *, seed: int, environment: Environment
) -> tuple[Iterator[Outgoing], int]:
    """Return what to send and how much it is, before repetitions."""
    if sum(given is not None for given in (scenario, sample, count)) > 1:
        msg = "--scenario, --sample and --count exclude each other"
        raise ConfigError(msg)
    if sample is not None:
        return iter([read_sample(sample, rng=_rng(seed))]), 1
    if scenario is not None:
        lines = read_scenario(scenario, rng=_rng(seed))
        return iter(lines), len(lines)
    total = count or DEFAULT_COUNT
    return itertools.islice(deliveries(seed, environment=environment), total), total


def _rng(seed: int) -> random.Random:
    """One for each use, or the jitter of a retry would change what is sent next."""
    return random.Random(seed)  # noqa: S311 - test traffic, not keys


def _report(run: Run, *, seed: int, as_json: bool) -> int:
    people = Console(stderr=True)
    tally = Tally()
    behind_s, interrupted = 0.0, False
    started = time.monotonic()
    with _bar(people, run.total) as progress:
        task = progress.add_task("Deliveries", total=run.total)

        def count(answer: Answer) -> None:
            tally.add(answer)
            progress.advance(task)

        try:
            behind_s = asyncio.run(_drive(run, on_answer=count))
        except KeyboardInterrupt:
            interrupted = True
    duration_s = time.monotonic() - started
    if as_json:
        figures = {
            "url": run.url,
            "seed": seed,
            "interrupted": interrupted,
            "duration_s": round(duration_s, 3),
            "rate_per_s": round(tally.total / duration_s, 2),
            "behind_schedule_s": round(behind_s, 3),
        }
        click.echo(orjson.dumps(figures | tally.document()))
    else:
        people.print(tally.rendered())
        noun = "delivery" if tally.total == 1 else "deliveries"
        people.print(
            f"{tally.total:,} {noun} in {duration_s:.1f} s ({tally.total / duration_s:,.1f}/s) to {run.url}",
            highlight=False,
            soft_wrap=True,
        )
        people.print(f"The same again: --seed {seed}", highlight=False, style="dim")
        if behind_s > 1:
            people.print(f"[yellow]Up to {behind_s:.1f} s behind the schedule: the rate was not reached.[/]")
    return INTERRUPTED if interrupted else int(tally.failed > 0)


async def _drive(run: Run, *, on_answer: Callable[[Answer], None]) -> float:
    connector = aiohttp.TCPConnector(limit=run.concurrency)
    # The attempt has its own deadline; the answer of a webhook is not worth a cookie.
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        sender = Sender(session=session, url=run.url, sign=run.sign, policy=run.policy, rng=run.rng)
        return await play(sender, run.outgoings, rate=run.rate, concurrency=run.concurrency, on_answer=on_answer)


def _bar(people: Console, total: int | None) -> Progress:
    short = total is not None and total < BAR_FROM
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=people,
        transient=True,
        disable=short or not people.is_terminal,
    )
