"""Hold all schema files against the house rules and against everything that was ever locked."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.registry.house import house_findings
from bridge.registry.lint import Finding, compatibility
from bridge.registry.lock import Lock, Schema


def findings(schemas: Mapping[str, Schema], lock: Lock) -> list[Finding]:
    """Return every reason to refuse `schemas` as what follows `lock`.

    Args:
        schemas: Record full name -> self-contained schema.
        lock: What is out there.
    """
    found: list[Finding] = []
    for record, schema in schemas.items():
        broken = compatibility(schema, [entry.schema for entry in lock.history(record)])
        found += broken
        if not any(finding.rule == "not_avro" for finding in broken):
            found += house_findings(schema)
    gone = lock.latest().keys() - schemas.keys()
    reason = "The record is in the lock and has no file; a published record stays."
    return found + [Finding(record, "", "record_removed", reason) for record in sorted(gone)]
