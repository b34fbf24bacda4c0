"""What is an Avro schema and what may follow it, for the store of the embedded registry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bridge.registry.lint import compatibility
from bridge.registry.store_form import full_form
from bridge.registry.store_model import RegistryFaultError
from bridge.registry.store_resolution import unreadable
from bridge.registry.store_validity import schema_faults


class AvroRules:
    """Avro's resolution rules for everyone, and the stricter ones of this project for its own subjects."""

    def form(self, text: str) -> str:
        """Return the one spelling of all texts that say the same schema; RegistryFaultError 42201 if it is none."""
        return full_form(_schema(text))

    def incompatibilities(self, new: str, olds: Sequence[str], *, level: str, ours: bool) -> list[str]:
        """Say why `new` may not follow `olds` under `level`; empty when it may."""
        if level == "NONE":
            return []
        newer, earlier = _schema(new), [_schema(old) for old in olds]
        reasons = [str(finding) for finding in compatibility(newer, earlier)] if ours else []
        for older in earlier:
            if not level.startswith("FORWARD"):
                reasons += [f"{reason}, so the new schema cannot read the old" for reason in unreadable(newer, older)]
            if not level.startswith("BACKWARD"):
                reasons += [f"{reason}, so the old schema cannot read the new" for reason in unreadable(older, newer)]
        return list(dict.fromkeys(reasons))


def _schema(text: str) -> Any:
    try:
        text.encode()  # ids are made from these bytes; a lone surrogate is no text
        schema = json.loads(text)
        faults = [*schema_faults(schema)] or ["an unlawful default or attribute" for _ in compatibility(schema, [])]
    except (ValueError, RecursionError):
        faults = ["not JSON"]
    if faults:
        raise RegistryFaultError(42201, f"Invalid schema: {faults[0]}")
    return schema
