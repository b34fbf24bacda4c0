"""The real code of the ingress in simulated worlds, each decided by its seed: `python -m tests.simulation`.

    plan        `operators.make_plan`: which kinds of faults, operators and senders' habits exist, and every act
    real code   `replica`: `open_durability` and `build_webhooks` of `bridge.app`, on the seams of `bridge.app.Seams`
    seams       `kafka` (brokers and aiokafka's clients), `disk` (and the spool's threads), `world` (clocks)
    loop        `loop`: virtual time; each step belongs to a process, which may be frozen, or end at any await
    senders     `dialects`: sources, their bodies and the events of these; `senders`: attempts, and what was answered
    acts        `operators`: one method for each kind of act; a new kind is a line of `KINDS` and its method;
                `commands`: the workers of commands that operators run on a host
    checks      `promises`: each by a name of `PROMISES`, while the world runs and when it is at rest
    run         `story`: run a plan, shorten one that breaks a promise, tell it; `runs`: many seeds in two processes

A world has two replicas, three brokers, and some 360 deliveries in three phases of 48 s. Faults end with most phases
and everything comes to rest; then all clocks pass 20 quiet minutes, which the loop skips. Nothing depends on
the machine, the day, or the order of a set: `World.trace` is the same for the same seed.

With `--consumers` worlds are those of `consuming`, which begin with the log that a world of the ingress has made.

A seed that breaks a promise is shortened: kinds of acts are left out, then single acts, while the same promise breaks.
"""

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path

from tests.simulation import consuming
from tests.simulation.operators import Plan, make_plan
from tests.simulation.postgres import a_server
from tests.simulation.runs import worlds
from tests.simulation.story import Ran, run, shrink, tell


def main() -> int:
    """Run worlds until enough of them have run, or the time is over; return 1 if a promise was broken."""
    arguments = _arguments()
    if not arguments.consumers:
        return _run(arguments, make_plan, run)
    with a_server() as dsn:
        return _run(arguments, consuming.make_plan, partial(consuming.run, dsn=dsn))


def _run(arguments: argparse.Namespace, make_plan: Callable[[int], Plan], run: Callable[..., Ran]) -> int:
    failed = list[Ran]()
    if arguments.seed is not None:
        ran = run(make_plan(arguments.seed), verbose=True)
        failed += [ran] if ran.broken else []
        _say("" if ran.broken else tell(ran))
    else:
        began, count, attempts = time.monotonic(), 0, 0
        ends_at = began + (_seconds(arguments.time) if arguments.time else math.inf)
        for ran in worlds(_numbers(arguments, make_plan), make_plan, run, ends_at=ends_at):
            count, attempts = count + 1, attempts + ran.attempts
            if arguments.traces:
                _say(f"{ran.plan.seed} {ran.trace}")
            if ran.broken:
                failed.append(ran)
                shown = next((each for each in ran.broken if each.promise == arguments.until), ran.broken[0])
                _say(f"seed {ran.plan.seed}: {shown.promise}: {shown.what}")
                if shown.promise == arguments.until:
                    break
        took_s = time.monotonic() - began
        _say(
            f"{count} worlds from seed {arguments.first}, {attempts} deliveries, {took_s:.0f} s, "
            f"{count / took_s * 60:.0f} a minute, {len(failed)} broken"
        )
    for ran in [each for each in failed if each.attempts][: arguments.stories]:
        _say(tell(shrink(ran, run)))
    return int(bool(failed))


def _numbers(arguments: argparse.Namespace, make_plan: Callable[[int], Plan]) -> Iterator[int]:
    if arguments.found:
        yield from found()
    wanted = set(arguments.kinds.split())
    seeds = (seed for seed in count(arguments.first) if wanted <= set(make_plan(seed).kinds))
    yield from islice(seeds, arguments.seeds or None)


def found() -> list[int]:
    """Return the seeds that found something once."""
    lines = (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]+)([smh])", text)
    if found is None:
        msg = f"{text!r} is not a time such as 30s, 10m or 1h"
        raise SystemExit(msg)
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description="Run worlds; tell the first that breaks a promise."
    )
    parser.add_argument("--seeds", type=int, default=0, help="how many worlds; default: until the time is over")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--with", dest="kinds", default="", help="only worlds with these kinds of acts")
    parser.add_argument("--seed", type=int, help="one world, told whole, or shortened if it breaks a promise")
    parser.add_argument("--for", dest="time", help="for how long, such as 10m")
    parser.add_argument("--until", help="end with the first world that breaks this promise")
    parser.add_argument("--stories", type=int, default=1, help="how many broken worlds to shorten and tell")
    parser.add_argument("--consumers", action="store_true", help="worlds of consumers, on an embedded PostgreSQL")
    parser.add_argument("--found", action="store_true", help="first the seeds of seeds.txt")
    parser.add_argument("--traces", action="store_true", help="print the digest of each world's trace")
    return parser.parse_args()


if __name__ == "__main__":
    code = main()
    # The tasks of ended processes must not run their `finally` blocks now.
    os._exit(code)
