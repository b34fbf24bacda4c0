"""The guarantees page names each check of the simulation, and each named check exists."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.simulation.effects import EFFECTS
from tests.simulation.faults import Fault, faults
from tests.simulation.promises import PROMISES

ROOT = Path(__file__).parents[2]


def test_each_promise_of_the_page_has_a_check_of_its_name_and_each_check_is_on_the_page() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    named = page.partition("## Checks by name")[2].partition("\n## ")[0]

    assert set(re.findall(r"^\| `([a-z0-9_]+)` \|", named, re.MULTILINE)) == PROMISES.keys() | EFFECTS.keys()


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.name)
def test_a_known_fault_can_be_brought_back_and_breaks_a_promise(fault: Fault) -> None:
    check = ["git", "apply", "--check", "-"]
    applied = subprocess.run(check, cwd=ROOT, input=fault.patch, capture_output=True, text=True, check=False)  # noqa: S603 - git of the PATH

    assert (applied.stderr, fault.promise in PROMISES.keys() | EFFECTS.keys()) == ("", True)


def test_each_name_is_that_of_a_check() -> None:
    modules = ("promises.py", "effects.py", "consuming.py")
    checks = "".join((Path(__file__).parent / name).read_text() for name in modules)

    assert {name for name in PROMISES.keys() | EFFECTS.keys() if f'note("{name}"' not in checks} == set()
