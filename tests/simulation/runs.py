"""Run many worlds in parallel processes."""

import gc
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from tests.simulation.operators import Plan
from tests.simulation.promises import Broken
from tests.simulation.story import Ran

PROCESSES = min(2, len(os.sched_getaffinity(0)))
# What processes that were ended in a world held stays in memory: released, their `finally` blocks would run.
WORLDS_OF_A_PROCESS = 20
# Time limit of a world in seconds; most take less than one.
WORLD_MAX_S = 900


def worlds(
    seeds: Iterator[int], make_plan: Callable[[int], Plan], run: Callable[[Plan], Ran], *, ends_at: float = math.inf
) -> Iterator[Ran]:
    """Yield the results of the worlds of some seeds, in the order in which they end.

    A world whose process is lost breaks a promise, too, and the others go on.
    """
    fork = multiprocessing.get_context("fork")
    running: dict[Connection, tuple[ForkProcess, list[int]]] = {}  # with the seeds that have not ended
    try:
        while True:
            while len(running) < PROCESSES and time.monotonic() < ends_at:
                batch = list(islice(seeds, WORLDS_OF_A_PROCESS))
                if not batch:
                    break
                receiver, sender = fork.Pipe(duplex=False)
                process = fork.Process(target=_run, args=(sender, batch, make_plan, run, ends_at))
                process.start()
                sender.close()
                running[receiver] = process, batch
            if not running:
                return
            for each in wait([*running]):
                assert isinstance(each, Connection)
                process, left = running[each]
                try:
                    ran: Ran = each.recv()
                    left.remove(ran.plan.seed)
                    yield ran
                except EOFError:
                    del running[each]
                    process.join()
                    if process.exitcode:
                        lost = Broken("no_bug", f"its process ended with {process.exitcode}")
                        yield Ran(make_plan(left[0]), [lost], "", (), 0, 0, 0.0, 0.0)
                        seeds = chain(left[1:], seeds)
    finally:
        for process, _ in running.values():
            process.kill()


def _run(
    sender: "Connection",
    seeds: Sequence[int],
    make_plan: Callable[[int], Plan],
    run: Callable[[Plan], Ran],
    ends_at: float,
) -> None:
    gc.disable()  # all of it stays until the process ends
    for seed in seeds:
        if time.monotonic() > ends_at:
            break
        signal.alarm(WORLD_MAX_S)
        sender.send(run(make_plan(seed)))
    os._exit(0)
