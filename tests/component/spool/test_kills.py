"""Killed at any moment: what was called durable is there, in order, and what was delivered last may come again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.runtime.failpoints import AFTER_FSYNC, BEFORE_FSYNC, BEFORE_KEY, BEFORE_POSITIONS, VARIABLE
from tests.component.spool.victim import PARTITIONS
from tests.spooling import ALL, PARTITION, entries, open_spool, ordinals

ROOT = Path(__file__).parents[3]
HANG_S = 60.0
KILLS = 12
# A victim may run ahead of who reads what it says: by what fits into its pipe, and as much that was read of it at once.
PIPE_BYTES = 4096
# In each partition; more than `KILLS` runs can say, each of 500 lines and some 550 by which it is ahead.
SPOOLED = 7000


def victim(*arguments: object, failpoint: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.component.spool.victim", *map(str, arguments)]
    environment = {**os.environ, VARIABLE: failpoint}
    return subprocess.Popen(  # noqa: S603 - our own
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, pipesize=PIPE_BYTES, text=True
    )


def said(lines: list[str], word: str) -> list[int]:
    return [int(line.split()[1]) for line in lines if line.startswith(f"{word} ")]


@pytest.mark.parametrize("point", [BEFORE_FSYNC, AFTER_FSYNC, BEFORE_POSITIONS])
async def test_a_death_at_a_named_point_loses_nothing_that_was_called_durable(tmp_path: Path, point: str) -> None:
    with victim("append", tmp_path, failpoint=f"{point}:kill@4") as process:
        lines = (process.communicate(timeout=HANG_S)[0]).splitlines()
    assert process.returncode == -9

    async with open_spool(tmp_path) as kept:
        promised = {number + each for number in said(lines, "durable") for each in (0, 1)}
        found = set(ordinals(kept.found))
        assert promised - set(said(lines, "delivered")) <= found
        # The call that was under way may be there or not, but not half.
        assert len(found - promised) in {0, 2}
        for partition in PARTITIONS:
            assert await kept.head(partition) == sorted(await kept.head(partition))
        assert kept.value("corrupt_records_total") == 0


async def test_a_death_while_the_first_key_is_made_leaves_none_that_cannot_be_used(tmp_path: Path) -> None:
    with victim("append", tmp_path, failpoint=f"{BEFORE_KEY}:kill") as process:
        process.communicate(timeout=HANG_S)
    assert process.returncode == -9

    async with open_spool(tmp_path) as kept:
        assert kept.spool.code == ""
        await kept.put(1)


@pytest.mark.volume
async def test_a_drain_that_is_killed_again_and_again_delivers_everything_in_order(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        for partition, first in zip(PARTITIONS, (0, SPOOLED), strict=True):
            await kept.spool.append(entries(range(first, first + SPOOLED), partition=partition))
    rng = random.Random(5)  # noqa: S311 - a replay is by its seed
    delivered: list[int] = []
    kills = 0
    while True:
        with victim("drain", tmp_path) as process:
            assert process.stdout is not None
            until = rng.randrange(50, 500) if kills < KILLS else ALL
            lines = []
            for line in process.stdout:
                lines.append(line)
                if len(lines) == until:
                    process.kill()
            process.wait(HANG_S)
        delivered += said(lines, "delivered")
        if "empty\n" in lines:
            break
        kills += 1

    assert kills == KILLS
    firsts = list(dict.fromkeys(delivered))
    for first in (0, SPOOLED):
        assert [number for number in firsts if first <= number < first + SPOOLED] == list(range(first, first + SPOOLED))
    async with open_spool(tmp_path) as kept:
        assert kept.found == []
        assert kept.spool.depth(PARTITION) == 0
