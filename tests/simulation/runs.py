"""Run many worlds, in as many processes as there are for it."""

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from multiprocessing.context import BaseContext
from queue import Queue

from tests.simulation.story import Ran

_OfSeed = Callable[[int], Ran]

PROCESSES = min(2, len(os.sched_getaffinity(0)))
# What processes that were ended in a world held stays in memory: released, their `finally` blocks would run.
WORLDS_OF_A_PROCESS = 20


def worlds(seeds: Iterator[int], of_seed: _OfSeed, *, ends_at: float = math.inf) -> Iterator[Ran]:
    """Yield what comes of the worlds of some seeds, in the order in which they end."""
    context = multiprocessing.get_context("fork")
    results: Queue[Ran | int] = context.SimpleQueue()  # type: ignore[assignment]  # of the same form
    work = partial(_run, of_seed, results, ends_at)
    running: set[int] = set()
    try:
        for _ in range(PROCESSES):
            _start(context, work, seeds, running)
        while running:
            result = results.get()
            if isinstance(result, Ran):
                yield result
                continue
            running.remove(result)
            if time.monotonic() < ends_at:
                _start(context, work, seeds, running)
    finally:
        for each in running:
            os.kill(each, signal.SIGKILL)


def _start(
    context: BaseContext, work: Callable[[Sequence[int]], None], seeds: Iterator[int], running: set[int]
) -> None:
    """Start a process for the next seeds, if there are any; its last result is its number."""
    batch = list(islice(seeds, WORLDS_OF_A_PROCESS))
    if batch:
        process = context.Process(target=work, args=(batch,))  # type: ignore[attr-defined]  # every one has it
        process.start()
        running.add(process.pid)


def _run(of_seed: _OfSeed, results: "Queue[Ran | int]", ends_at: float, seeds: Sequence[int]) -> None:
    for seed in seeds:
        if time.monotonic() > ends_at:
            break
        results.put(of_seed(seed))
    results.put(os.getpid())
    os._exit(0)
