"""Named points where a test can kill, stop or fail a process; inactive in production.

`DRX_FAILPOINT=after_effect_before_commit:kill@3` kills the process (SIGKILL) at the third visit; `stop` pauses it
(SIGSTOP) until SIGCONT, and `error` raises. Several points are separated by commas. The variable is read once, at
import.
"""

import os
import re
import signal
from collections.abc import Mapping

VARIABLE = "DRX_FAILPOINT"

_form = re.compile(r"([a-z_]+):(kill|stop|error)(?:@([1-9][0-9]{0,8}))?").fullmatch


class FailpointError(Exception):
    """Raised by `error`; not a `BridgeError`, so that it is treated as a bug."""


def armed(environment: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return the action and visit number of each point; `ValueError` for a malformed value."""
    points = {}
    for text in filter(None, environment.get(VARIABLE, "").split(",")):
        form = _form(text)
        if form is None:
            raise ValueError(text)
        points[form[1]] = form[2], int(form[3] or 1)
    return points


_armed = armed(os.environ)


def hit(name: str) -> None:
    """Visit a named point; act on its nth visit only."""
    if name not in _armed:
        return
    action, left = _armed[name]
    _armed[name] = action, left - 1
    if left == 1:
        if action == "error":
            raise FailpointError(name)
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
