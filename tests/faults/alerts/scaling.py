"""The shipped rules with every duration divided by one factor: an hour then becomes a minute.

Divided are `for` and `keep_firing_for`; every duration of PromQL (`[5m]`, `offset 1h`); and the numbers of seconds that
are spans too, which only their place tells: what an age by the clock (an expression with `time()`) or that of a record
which waits (`lag_seconds`, parked or in an outbox too) is compared with, and how far `predict_linear` looks ahead.
Everything else stays as it is, above all the buckets and quantiles of how long an answer, an event or a clock may be
late: the system under the rules runs at its own pace.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_UNIT = "|".join(_MILLISECONDS)
_SPAN = rf"(?:\d+(?:{_UNIT}))+"
# A range, perhaps with a step; or by itself, and then neither a part of a name, such as `slo_burn:5m`, nor of a number.
_DURATION = re.compile(rf"\[{_SPAN}(?::{_SPAN})?\]|(?<![\w:.]){_SPAN}(?!\w)")
_PART = re.compile(rf"(\d+)({_UNIT})")
# The rules have one comparison a line.
_AGE = re.compile(r"((?:time\(\)|_lag_seconds\b|_oldest_age_seconds\b)[^\n]*? [<>]=? )(\d+)")
_AHEAD = re.compile(r"(predict_linear\([^\n]*?, )(\d+)")
_TEXT = re.compile(r'("[^"]*")')


def scaled(rules: Mapping[str, Any], factor: int) -> dict[str, Any]:
    return {
        "groups": [{**group, "rules": [_rule(each, factor) for each in group["rules"]]} for group in rules["groups"]]
    }


def scaled_query(query: str, factor: int) -> str:
    def divided(match: re.Match[str]) -> str:
        return f"{match[1]}{int(match[2]) / factor:g}"

    def shortened(match: re.Match[str]) -> str:
        return re.sub(_SPAN, lambda span: scaled_duration(span[0], factor), match[0])

    return _AHEAD.sub(divided, _AGE.sub(divided, _outside_texts(query, lambda code: _DURATION.sub(shortened, code))))


def scaled_duration(text: str, factor: int) -> str:
    """Return a duration as Prometheus writes it, the same.

    Raises:
        ValueError: It is not a whole number of milliseconds, the finest unit.
    """
    whole, rest = divmod(sum(int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(text)), factor)
    if rest or not whole:
        message = f"{text} cannot be divided by {factor}"
        raise ValueError(message)
    return f"{whole}ms"


def _rule(rule: Mapping[str, Any], factor: int) -> dict[str, Any]:
    held = {name: scaled_duration(rule[name], factor) for name in ("for", "keep_firing_for") if name in rule}
    return {**rule, "expr": scaled_query(rule["expr"], factor), **held}


def _outside_texts(query: str, change: Callable[[str], str]) -> str:
    return "".join(part if number % 2 else change(part) for number, part in enumerate(_TEXT.split(query)))
