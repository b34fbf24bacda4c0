"""Named points at which a test makes a process die, stop or fail: an instrument of tests, inert in production.

`DRX_FAILPOINT=after_effect_before_commit:kill@3` kills the process (SIGKILL) the third time it gets there; `stop`
freezes it (SIGSTOP) until someone sends SIGCONT, and `error` raises. Several points are separated by commas. The
variable is read once, at import.
"""

import os
import re
import signal
from collections.abc import Mapping

VARIABLE = "DRX_FAILPOINT"

_form = re.compile(r"([a-z_]+):(kill|stop|error)(?:@([1-9][0-9]{0,8}))?").fullmatch


class FailpointError(Exception):
    """What `error` raises: outside the tree of errors on purpose, as a bug would be."""


def armed(environment: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return the action of each point and the visit at which it acts; `ValueError` for a malformed text."""
    points = {}
    for text in filter(None, environment.get(VARIABLE, "").split(",")):
        form = _form(text)
        if form is None:
            raise ValueError(text)
        points[form[1]] = form[2], int(form[3] or 1)
    return points


_armed = armed(os.environ)


def hit(name: str) -> None:
    """Pass a named point; act on its nth visit, and only then."""
    if name not in _armed:
        return
    action, left = _armed[name]
    _armed[name] = action, left - 1
    if left == 1:
        if action == "error":
            raise FailpointError(name)
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
