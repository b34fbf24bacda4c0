"""The contract of `/metrics` for tests."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.metrics_core import Metric

from docs.metrics_page import PREFIX, contract

CONTRACT = contract()
SETS: Mapping[str, Any] = CONTRACT["sets"]
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True, slots=True)
class Promise:
    """One metric of one kind of process; `labels` is label to name of a set."""

    name: str
    process: str
    type: str
    unit: str
    meaning: str
    labels: Mapping[str, str]

    @property
    def family(self) -> str:
        return self.name.removesuffix("_total") if self.type == "counter" else self.name

    @property
    def series(self) -> tuple[str, ...]:
        """The names that queries can say."""
        return tuple(f"{self.name}{suffix}" for suffix in _SUFFIXES.get(self.type, ("",)))


PROMISES = [
    Promise(**{"labels": {}, **each, "name": PREFIX + each["name"]})  # the file leaves the prefix out
    for each in CONTRACT["metrics"]
]


def queryable() -> dict[str, set[str]]:
    """Series name to its labels in any process."""
    found: dict[str, set[str]] = {name: set() for name in CONTRACT["libraries"]}
    for each in PROMISES:
        for name in each.series:
            found.setdefault(name, set()).update(each.labels)
    return found


def broken(families: Iterable[Metric], *processes: str, bounds: Mapping[str, Iterable[str]] | None = None) -> list[str]:
    """Return differences between exported families and the contract; `bounds` has the values of open sets."""
    found = {family.name: family for family in families if family.name.startswith(PREFIX)}  # not of the library
    wanted = {each.family: each for each in PROMISES if each.process in processes}
    faults = [f"{name}: not promised" for name in sorted(found.keys() - wanted.keys())]
    faults += [f"{name}: promised, not there" for name in sorted(wanted.keys() - found.keys())]
    for name in sorted(found.keys() & wanted.keys()):
        faults += _differences(found[name], wanted[name], bounds or {})
    return faults


def _differences(family: Metric, promise: Promise, bounds: Mapping[str, Iterable[str]]) -> list[str]:
    faults = []
    if family.type != promise.type:
        faults.append(f"{family.name}: is a {family.type}")
    if family.documentation != promise.meaning:
        faults.append(f"{family.name}: says {family.documentation!r}")
    for sample in family.samples:
        labels = {label: value for label, value in sample.labels.items() if label != "le"}
        if labels.keys() != promise.labels.keys():
            faults.append(f"{family.name}: has labels {sorted(labels)}")
            continue
        for label, value in labels.items():
            known = SETS[promise.labels[label]]
            known = bounds.get(promise.labels[label]) if isinstance(known, str) else known
            if known is not None and value not in known:
                faults.append(f"{family.name}: {label} says {value!r}")
    return faults
