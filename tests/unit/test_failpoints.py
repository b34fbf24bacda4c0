from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from bridge.runtime.failpoints import VARIABLE, Failpoint, FailpointError, armed, hit


def test_nothing_is_armed_without_the_variable() -> None:
    assert armed({}) == []


def test_several_points_are_separated_by_commas() -> None:
    found = armed({VARIABLE: "while_parking:kill,before_key:stop@2"})

    assert [each.name for each in found] == ["while_parking", "before_key"]


def test_an_unarmed_point_is_passed() -> None:
    hit("while_parking")


def test_it_acts_on_the_nth_visit_only() -> None:
    point = Failpoint("while_parking:error@2")

    point.reached()
    with pytest.raises(FailpointError):
        point.reached()
    point.reached()


@pytest.mark.parametrize("text", ["while_parking", "while_parking:burn", ":kill", "while_parking:kill@0"])
def test_a_mistyped_point_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        armed({VARIABLE: text})


def test_a_process_kills_itself() -> None:
    program = "from bridge.runtime.failpoints import hit; hit('while_parking'); hit('while_parking'); print('alive')"
    done = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", program], env={VARIABLE: "while_parking:kill@2"}, capture_output=True, check=False
    )

    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
