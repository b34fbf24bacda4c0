"""Named points at which a test makes a process die, stop or fail: an instrument of tests, inert in production.

`DRX_FAILPOINT=after_effect_before_commit:kill@3` kills the process (SIGKILL) the third time it gets there; `stop`
freezes it (SIGSTOP) until someone sends SIGCONT, and `error` raises. Several points are separated by commas. The
variable is read once, at import.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLE = "DRX_FAILPOINT"

# Of the ingress, in the order in which a delivery meets them.
BEFORE_VERIFY = "before_verify"
AFTER_VERIFY = "after_verify"
AFTER_PRODUCE = "after_produce"
BEFORE_ANSWER = "before_answer"
DRAINED_BEFORE_DROP = "drained_before_drop"
# Of consumers. Before a transaction that settles begins, and so before its epoch is checked: at `fence` with batches,
# at `settle` with lanes.
BEFORE_FENCE = "before_fence"
AFTER_EFFECT = "after_effect_before_commit"
BATCH_BEFORE_OFFSET = "batch_before_offset"
WHILE_PARKING = "while_parking"
WHILE_RELEASING = "while_releasing"
BETWEEN_CLAIM_AND_SEEK = "between_claim_and_seek"
# Of the consumer `archive`.
BEFORE_STAGE = "before_stage"
AFTER_STAGE = "after_stage"
AFTER_MERGE = "after_merge"
AFTER_EXCHANGE = "after_exchange"
AFTER_PUBLISH = "after_publish"
# Of the spool.
BEFORE_FSYNC = "before_fsync"
AFTER_FSYNC = "after_fsync"
BEFORE_POSITIONS = "before_positions"
BEFORE_KEY = "before_key"

_form = re.compile(r"([a-z_]+):(kill|stop|error)(?:@([1-9][0-9]{0,8}))?").fullmatch


class FailpointError(Exception):
    """What `error` raises: outside the tree of errors on purpose, as a bug would be."""


@dataclass
class Failpoint:
    """What happens at a point, and after how many visits."""

    action: str
    left: int


def armed(environment: Mapping[str, str]) -> dict[str, Failpoint]:
    """Return the points that an environment names; `ValueError` for what is not `name:kill|stop|error[@n]`."""
    points = {}
    for text in filter(None, environment.get(VARIABLE, "").split(",")):
        form = _form(text)
        if form is None:
            raise ValueError(text)
        points[form[1]] = Failpoint(form[2], int(form[3] or 1))
    return points


_armed = armed(os.environ)


def hit(name: str) -> None:
    """Pass a named point; act on its nth visit, and only then."""
    point = _armed.get(name)
    if point is None:
        return
    point.left -= 1
    if point.left == 0:
        if point.action == "error":
            raise FailpointError(name)
        os.kill(os.getpid(), signal.SIGKILL if point.action == "kill" else signal.SIGSTOP)
