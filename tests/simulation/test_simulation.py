"""Simulated worlds: those of fixed seeds, new ones, and reproducibility."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from tests.faults.ingress.clock import Clock
from tests.simulation.operators import Plan, make_plan
from tests.simulation.runs import worlds
from tests.simulation.story import Ran

ROOT = Path(__file__).parents[2]


def simulate(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def traces(*worlds: str, **environment: str) -> dict[str, str]:
    """Return the digest of each fixed world; of fewer on a machine that has no time for all in half a minute."""
    said = simulate(*worlds, "--traces", "--for", "30s", **environment)
    return dict(line.split() for line in said.splitlines()[:-1])


def test_no_promise_is_broken_in_new_worlds() -> None:
    """Each change of the code runs other worlds; the same code runs the same, on each machine."""
    code = sorted(path for area in ("bridge", "tests/simulation") for path in (ROOT / area).rglob("*.py"))
    first = int(sha256(b"".join(path.read_bytes() for path in code)).hexdigest(), 16) % 10**9
    assert simulate("--first", str(first), "--seeds", "50").endswith(" 0 broken\n")


@pytest.mark.parametrize("worlds", [("--found", "--seeds", "50"), ("--consumers", "--seeds", "10")])
def test_worlds_keep_all_promises_and_are_the_same_under_other_hashes_and_on_another_day(
    worlds: Sequence[str], tmp_path: Path
) -> None:
    """Nothing but the seed decides: no order of a set, no clock of the machine."""
    clock = Clock(tmp_path / "clock")
    clock.step(40 * 86_400)

    here = traces(*worlds, PYTHONHASHSEED="1")
    there = traces(*worlds, PYTHONHASHSEED="2", **clock.environment)

    both = here.keys() & there.keys()
    assert both
    assert {seed: here[seed] for seed in both} == {seed: there[seed] for seed in both}


def test_the_other_worlds_run_when_the_process_of_one_is_lost() -> None:
    def run(plan: Plan) -> Ran:
        if plan.seed == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return Ran(plan, (), "", (), 0, 0, 0.0, 0.0)

    found = {
        each.plan.seed: [broken.what for broken in each.broken] for each in worlds(iter(range(30)), make_plan, run)
    }

    assert found == {seed: ["its process ended with -9"] if seed == 3 else [] for seed in range(30)}
