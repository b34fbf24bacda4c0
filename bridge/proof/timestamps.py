"""Timestamps that senders sign: their form, and the limit on their age, which bounds replay attacks."""

import math
import re

from bridge.proof.scheme import refuse

# Allowed form of Unix seconds in a header (docs/contract.md §1).
TIMESTAMP = re.compile(rb"[0-9]{1,12}")


def age_words(tolerance_s: int | None) -> str:
    """Describe the accepted age of a delivery."""
    return "any age" if tolerance_s is None else f"at most {tolerance_s} s old"


def check_age(timestamp: int, tolerance_s: int | None, now: float) -> None:
    """Check the age in whole seconds, as senders count; a fraction would refuse an age of exactly `tolerance_s`."""
    if tolerance_s is None:
        return
    age_s = math.floor(now) - timestamp
    if age_s > tolerance_s:
        refuse("timestamp_stale")
    if -age_s > tolerance_s:
        refuse("timestamp_future")
