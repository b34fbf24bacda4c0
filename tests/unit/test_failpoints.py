import signal
import subprocess
import sys

import pytest

from bridge.runtime import failpoints
from bridge.runtime.failpoints import VARIABLE, FailpointError, armed, hit


def test_it_acts_on_the_nth_visit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_armed", armed({VARIABLE: "while_parking:error@2,before_key:error"}))

    hit("unarmed")
    hit("while_parking")
    with pytest.raises(FailpointError):
        hit("while_parking")
    hit("while_parking")
    with pytest.raises(FailpointError):
        hit("before_key")


def test_a_process_kills_itself() -> None:
    program = "from bridge.runtime.failpoints import hit; hit('while_parking'); hit('while_parking'); print('alive')"
    done = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", program], env={VARIABLE: "while_parking:kill@2"}, capture_output=True, check=False
    )

    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
