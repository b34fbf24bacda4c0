"""Coverage of a mapping file by samples: unused tables, fields without a value, members never read."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from bridge.event import Delivery, ParkReason
from bridge.mapping.assemble import Draft
from bridge.mapping.mapped import MappingFile
from bridge.mapping.mapping_file import EventRule
from bridge.mapping.profile import Mapped
from bridge.runtime.screen import printable

_index = re.compile(r"/\d+(?=/|$)")


@dataclass(slots=True)
class Coverage:
    """A profile that records which tables and fields of its mapping file are used; it keeps no values."""

    mapping: MappingFile
    missing: list[str] = field(default_factory=list)  # paths of everything that is missing in the last body
    _fired: set[EventRule] = field(default_factory=set)
    _given: set[tuple[EventRule, str]] = field(default_factory=set)
    _kept: set[str] = field(default_factory=set)
    _bare: Counter[str] = field(default_factory=Counter)
    _ignored: Counter[str] = field(default_factory=Counter)

    def __getattr__(self, name: str) -> Any:
        """Return other attributes of the profile, such as `parse`."""
        return getattr(self.mapping, name)

    def reading_xml(self) -> "Coverage":
        """See `Profile`; the copy shares the notes of this profile."""
        return replace(self, mapping=self.mapping.reading_xml())

    def map(self, delivery: Delivery, document: object, /) -> Mapped | ParkReason:
        """See `Profile.map`."""
        run = self.mapping.run(delivery, document)
        self.missing.clear()
        for rule, draft in run.matched:
            self._fired.add(rule)
            self._given.update((rule, name) for name in _given(draft))
            lacking = draft.parts.items() if draft else ()
            self.missing += [part.path for name, part in lacking if part.value is None and name in rule.required]
        self._bare.update(run.unmapped)
        self._ignored[""] += run.ignored
        for event in run.outcome.events if isinstance(run.outcome, Mapped) else ():
            kept: Any = event.value["extensions"]
            self._kept.update(_index.sub("/*", pointer) for pointer in kept)
        return run.outcome

    def report(self) -> dict[str, Any]:
        """Return what the bodies used and did not use, as JSON types; tables are identified by number."""
        never, ungiven = [], []
        for number, rule in enumerate(self.mapping.file.events, 1):
            if rule not in self._fired:
                never.append(f"event.{number}")
                continue
            names = [name for name in rule.leading if name != "account"] + [f"data.{name}" for name in rule.data]
            ungiven += [f"event.{number}.{name}" for name in names if (rule, name) not in self._given]
        return {
            "tables_never_fired": never,
            "fields_never_given": ungiven,
            "kept_as_extensions": sorted(self._kept),
            "elements_without_event": dict(self._bare),
            "elements_ignored": self._ignored[""],
        }


def _given(draft: Draft | None) -> Iterator[str]:
    """Yield the fields that an event has: the leading fields, and the fields of its record."""
    if draft is None:
        return
    yield from (f"data.{name}" for name, part in draft.parts.items() if part.value is not None)
    leading = {"id": draft.id, "time": draft.time, "correlation": draft.finished.get("correlation_id")}
    yield from (name for name, value in leading.items() if value)


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a report, for people."""
    for name, found in report.items():
        listed = ", ".join(map(printable, found)) if isinstance(found, list) else ""
        if isinstance(found, dict):
            listed = ", ".join(f"{count} at {path or 'the body'}" for path, count in found.items())
        elif isinstance(found, int) and found:
            listed = str(found)
        if listed:
            yield f"{name.replace('_', ' ')}: {listed}"
