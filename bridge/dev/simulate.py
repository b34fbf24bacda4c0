"""`drx-bridge simulate`: send deliveries as DRx does, and report the responses."""

import asyncio
import itertools
import math
import random
import secrets
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.progress import Progress

from bridge.commands.scheme_options import asked_scheme, named_scheme_options
from bridge.commands.sign import id_of
from bridge.contract.events import EVENT_MODELS
from bridge.dev.sources import SOURCES
from bridge.dev.traffic import deliveries, new_id
from bridge.errors import ConfigError
from bridge.mapping.preview import ENVIRONMENTS
from bridge.runtime.process import INTERRUPTED, FloatRange
from bridge.sender.sender import (
    Delivered,
    Post,
    Reply,
    RetryPolicy,
    Sender,
    content_type_of,
    open_session,
    play,
    webhook_url,
)
from bridge.sender.signing import read_signer

DEFAULT_COUNT = 100
# Maximum deliveries in flight with --rate.
CONCURRENCY = 64
# Fewer deliveries finish before a progress bar is useful.
BAR_FROM = 20
# A repeat is sent up to this many deliveries after the first, since a retry is rarely the next delivery.
REPEAT_WITHIN = 10
PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))


@click.command()
@click.option("--url", help="URL to post to; the default path is /webhooks/ and the source.")
@click.option(
    "--source",
    type=click.Choice(list(SOURCES)),
    default="drx",
    show_default=True,
    help="Sender to simulate, as `dev` configures it: body format and signing scheme.",
)
@named_scheme_options
@click.option(
    "--secret-file", type=click.Path(path_type=Path), help="File with the secret, or with the private key of tokens."
)
@click.option("--scenario", type=click.Path(path_type=Path), help="Send each line of this NDJSON file, in order.")
@click.option("--sample", type=click.Path(path_type=Path), help="Send this file's bytes, exactly, as one delivery.")
@click.option(
    "--rate",
    type=FloatRange(0, min_open=True),
    help="Deliveries a second, on a fixed schedule; default: one after another.",
)
@click.option("--count", type=click.IntRange(1), help=f"Generated deliveries, of all types; default: {DEFAULT_COUNT}.")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(list(EVENT_MODELS)),
    metavar="TYPE",
    help="Only generated deliveries of this type, such as prescription.sent; one unless --count is given.",
)
@click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Of generated deliveries; default: sandbox.")
@click.option("--print", "prints", is_flag=True, help="Send nothing: print the bodies, one per line.")
@click.option("--seed", type=int, help="Repeat an earlier run: same deliveries, same ids, same order. Random if unset.")
@click.option("--duplicates", type=FloatRange(0, 1), default=0.0, help="Probability of sending a delivery again.")
@click.option("--shuffle", is_flag=True, help="Send in random order.")
@click.option("--attempts", type=click.IntRange(1), default=8, show_default=True, help="Maximum attempts per delivery.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON document on standard output.")
def simulate(
    *,
    url: str | None,
    source: str,
    scheme_text: str | None,
    parameters: Sequence[str],
    secret_file: Path | None,
    scenario: Path | None,
    sample: Path | None,
    rate: float | None,
    count: int | None,
    types: tuple[str, ...],
    environment: str | None,
    prints: bool,
    seed: int | None,
    duplicates: float,
    shuffle: bool,
    attempts: int,
    as_json: bool,
) -> int:
    """Sign and post deliveries as DRx or a vendor does, retry as a sender does, and report the responses.

    --scheme and --parameter sign as `drx-bridge sign` does, for a source that `dev` does not configure.
    Without --scenario or --sample the deliveries are generated: plausible prescriptions of people who do not exist.
    Without --rate, each delivery waits for the response to the previous one. Exit 0 if every delivery got a 2xx,
    else 1.
    """
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    chosen, total = _choose(scenario, sample, count, types, source=source, seed=seed)
    if environment is not None:
        if sample or scenario or source != "drx":
            raise ConfigError("--environment: it can be changed only in generated deliveries of drx")
        named = b'"environment":"%b"'
        old, new = named % b"sandbox", named % environment.encode()
        chosen = (each._replace(body=each.body.replace(old, new, 1)) for each in chosen)
    if prints:
        for outgoing in chosen:
            click.echo(outgoing.body)
        return 0
    if url is None or secret_file is None:
        raise click.UsageError(f"Missing option '{'--url' if url is None else '--secret-file'}'.")
    url, scheme = webhook_url(url, source), SOURCES[source].configured
    if scheme_text or parameters:
        scheme = asked_scheme(None, scheme_text, parameters).scheme
    sign = read_signer(scheme, secret_file)
    outgoings = arrange(chosen, rng=_rng(seed), duplicates=duplicates, shuffle=shuffle)

    async def drive(count: Callable[[Delivered], None]) -> float:
        async with open_session() as session:
            policy = RetryPolicy(attempts=attempts)
            kind = content_type_of(sample.name if sample else "", SOURCES[source].content_type)
            sender = Sender(session=session, url=url, sign=sign, policy=policy, rng=_rng(seed), content_type=kind)

            async def deliver(outgoing: Post) -> None:
                count(await sender.deliver(outgoing))

            return await play(_each(outgoings), deliver, rate=rate, concurrency=1 if rate is None else CONCURRENCY)

    return _run(drive, None if duplicates else total, shown={"url": url, "seed": seed}, as_json=as_json)


def _choose(
    scenario: Path | None, sample: Path | None, count: int | None, types: Sequence[str], *, source: str, seed: int
) -> tuple[Iterator[Post], int]:
    """Return the deliveries to send and their number, before repeats are added."""
    if sum(given is not None for given in (scenario, sample, count)) > 1:
        raise ConfigError("--scenario, --sample and --count exclude each other")
    if types and source != "drx":
        raise ConfigError(f"--type: {source} sends no such types")
    if (file := sample or scenario) is not None:
        rng, bodies = _rng(seed), [file.read_bytes()] if sample else _lines_of(file)
        return iter([Post(id_of(body) or new_id(rng), body) for body in bodies]), len(bodies)
    generated = deliveries(seed, source=source)
    if types:
        generated = (each for each in generated if orjson.loads(each.body)["type"] in types)
    total = count or len(types) or DEFAULT_COUNT
    return itertools.islice(generated, total), total


async def _each(outgoings: Iterable[Post]) -> AsyncIterator[Post]:
    for outgoing in outgoings:
        yield outgoing


def _rng(seed: int) -> random.Random:
    """Return a generator for each use, so that the jitter of a retry does not change what is sent next."""
    return random.Random(seed)  # noqa: S311 - test traffic, not keys


def _run(
    drive: Callable[[Callable[[Delivered], None]], Coroutine[None, None, float]],
    total: int | None,
    *,
    shown: Mapping[str, object],
    as_json: bool,
) -> int:
    """Send all deliveries with a progress bar, and report; return the exit code."""
    people, tally = Console(stderr=True, highlight=False, soft_wrap=True), Totals()
    behind_s, interrupted, started = 0.0, False, time.monotonic()
    is_short = total is not None and total < BAR_FROM
    with Progress(console=people, transient=True, disable=is_short or not people.is_terminal) as progress:
        task = progress.add_task("Deliveries", total=total)

        def count(ended: Delivered) -> None:
            tally.add(ended)
            progress.advance(task)

        try:
            behind_s = asyncio.run(drive(count))
        except KeyboardInterrupt:
            interrupted = True
    duration_s = time.monotonic() - started
    if as_json:
        figures = {
            **shown,
            "interrupted": interrupted,
            "duration_s": round(duration_s, 3),
            "rate_per_s": round(tally.total / duration_s, 2),
            "behind_schedule_s": round(behind_s, 3),
        }
        click.echo(orjson.dumps(figures | tally.document()))
    else:
        people.print("\n".join(tally.lines()), markup=False)
        if tally.answers and {outcome for _, outcome, _ in tally.answers} == {"parked"}:
            people.print("All were parked: none became an event.", style="yellow")
            if any(reason == "environment_mismatch" for *_, reason in tally.answers):
                people.print("The source is of another environment; --environment names it.", style="yellow")
        rate = f"{tally.total:,} in {duration_s:.1f} s ({tally.total / duration_s:,.1f}/s)"
        people.print(f"{rate} to {shown['url']}; the same again: --seed {shown['seed']}", markup=False)
        if behind_s > 1:
            people.print(f"Up to {behind_s:.1f} s behind the schedule: the rate was not reached.", style="yellow")
    return INTERRUPTED if interrupted else int(tally.failed > 0)


def _lines_of(path: Path) -> list[bytes]:
    """Yield a body for each line that is not blank."""
    lines = [line.removesuffix(b"\r") for line in path.read_bytes().split(b"\n") if line.strip()]
    if not lines:
        raise ConfigError(f"{path}: no deliveries in it; expected one JSON body per line")
    return lines


def arrange(outgoings: Iterable[Post], *, rng: random.Random, duplicates: float, shuffle: bool) -> Iterator[Post]:
    """Repeat deliveries with probability `duplicates`, and shuffle them if asked to."""
    repeated = _repeat(outgoings, rng=rng, probability=duplicates)
    if not shuffle:
        return repeated
    mixed = list(repeated)
    rng.shuffle(mixed)
    return iter(mixed)


def _repeat(outgoings: Iterable[Post], *, rng: random.Random, probability: float) -> Iterator[Post]:
    pending: list[tuple[int, Post]] = []
    for number, outgoing in enumerate(outgoings):
        yield outgoing
        if rng.random() < probability:
            pending.append((number + rng.randrange(REPEAT_WITHIN), outgoing))
        yield from (late for due, late in pending if due <= number)
        pending = [(due, late) for due, late in pending if due > number]
    yield from (late for _, late in pending)


class Totals:
    """Counts responses as they arrive; keeps no bodies or ids."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[int, str, str]] = Counter()
        self.retries: Counter[str] = Counter()
        self.failed = 0
        self._latencies_s = array("d")

    def add(self, ended: Delivered) -> None:
        """Count a delivery that has its final response."""
        reply = ended.reply
        self.answers[reply.status, reply.outcome, reply.reason] += 1
        self.retries.update(ended.retried)
        self.failed += not reply.taken
        if reply.status:
            self._latencies_s.append(reply.latency_s)

    @property
    def total(self) -> int:
        """Deliveries that have their final response."""
        return self.answers.total()

    def latency_ms(self) -> dict[str, float | None]:
        """Nearest-rank percentiles of the time from first sending to the final response."""
        ordered = sorted(self._latencies_s)
        return {
            name: round(ordered[max(0, math.ceil(part * len(ordered)) - 1)] * 1000, 2) if ordered else None
            for name, part in PERCENTILES
        }

    def document(self) -> dict[str, object]:
        """Return all counts, as JSON types."""
        return {
            "deliveries": self.total,
            "failed": self.failed,
            "retries": self.retries.total(),
            "retried": dict(sorted(self.retries.items())),
            "answers": [
                {"status": status or None, "outcome": outcome or None, "reason": reason or None, "count": count}
                for (status, outcome, reason), count in sorted(self.answers.items())
            ],
            "latency_ms": self.latency_ms(),
        }

    def lines(self) -> list[str]:
        """Return all counts, as lines for people."""
        answers = [
            f"{count:>9,}  {Reply(status, outcome, 0.0, reason)}"
            for (status, outcome, reason), count in sorted(self.answers.items())
        ]
        times = [f"{name} {value:,.1f}" for name, value in self.latency_ms().items() if value is not None]
        causes = ", ".join(f"{count:,} x {cause}" for cause, count in sorted(self.retries.items()))
        retried = [f"Tried again {self.retries.total():,} times: {causes}"] if causes else []
        return [*answers, f"Latency, ms: {', '.join(times) or 'none'}", *retried]
