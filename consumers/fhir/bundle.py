"""Lay our elements over what others wrote, make a transaction of it, and read what a server answers.

We own some elements of a resource and our own items of the lists `identifier`, `note` and `output`; everything else is
others' and stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from bridge.errors import PermanentError
from consumers.fhir.elements import OUR_ITEM, Element, Naming
from consumers.fhir.mapping import Resource

FHIR_JSON = "application/fhir+json"
# Elements that are ours alone: where we do not say one, it is not there.
_OWNED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "MedicationRequest": frozenset(
            {
                "status", "statusReason", "intent", "medicationCodeableConcept", "medicationReference", "subject",
                "authoredOn", "requester", "dosageInstruction", "dispenseRequest", "substitution", "priorPrescription",
            }
        ),
        "MedicationDispense": frozenset(
            {
                "status", "statusReasonCodeableConcept", "statusReasonReference", "medicationCodeableConcept",
                "medicationReference", "subject", "performer", "authorizingPrescription", "type", "quantity",
                "daysSupply", "whenPrepared", "whenHandedOver",
            }
        ),
        "Task": frozenset(
            {
                "status", "statusReason", "businessStatus", "intent", "code", "description", "focus", "basedOn", "for",
                "authoredOn",
            }
        ),
        "Communication": frozenset(
            {"status", "category", "subject", "about", "sent", "reasonCode", "payload"}
        ),
        "Flag": frozenset({"status", "category", "code", "subject"}),
    }
)  # fmt: skip
# The server's own, or written anew each time.
_HEAD = frozenset({"resourceType", "id", "meta", "identifier", "note", "output"})
_ITEMS = ("note", "output")
# All of these fit into the 64 bits that orjson writes.
_INTEGER_DIGITS = 18
# Of `meta`, what others say.
_META = ("profile", "security", "tag")
_is_version = re.compile(r"""(?:W/)?"?([A-Za-z0-9.-]{1,64})"?""").fullmatch
_version_in = re.compile(r"/_history/([A-Za-z0-9.-]{1,64})$").search
# FHIR R4, code system issue-type; a server's own words are not repeated.
_ISSUES = frozenset(
    {
        "invalid", "structure", "required", "value", "invariant", "security", "forbidden", "processing",
        "not-supported", "duplicate", "multiple-matches", "not-found", "deleted", "too-long", "code-invalid",
        "extension", "too-costly", "business-rule", "conflict", "exception", "incomplete",
    }
)  # fmt: skip
# HAPI says so in words only, under the code `processing`.
_says_multiple = re.compile(rb"match URL[^\"]{0,2000}matched \d+ resources").search


class Digits(float):
    """A number with the digits that it came with: in FHIR, 1.50 is another precision than 1.5 (R4, "decimal")."""

    def __init__(self, text: str) -> None:
        self.text = text


class Entry(NamedTuple):
    """One PUT.

    Attributes:
        if_match: Version that must be the current one; empty: whatever there is.
    """

    resource: Resource
    body: Element
    if_match: str = ""

    @property
    def url(self) -> str:
        """Path below the base URL."""
        return f"{self.resource.type}/{self.resource.id}"


def owned_sha256(resource: Resource) -> str:
    """Return a digest that tells whether anything of ours has changed."""
    return sha256(orjson.dumps(resource.elements, option=orjson.OPT_SORT_KEYS)).hexdigest()


def foreign(current: Mapping[str, Any], naming: Naming) -> Element:
    """Return what others say in a resource of ours, as `composed` takes it."""
    owned = _OWNED[current["resourceType"]]
    kept = {name: value for name, value in current.items() if name not in owned and name not in _HEAD}
    meta = {name: current["meta"][name] for name in _META if name in current.get("meta", {})}
    shared = {
        "identifier": [each for each in current.get("identifier", ()) if not naming.owns(each)],
        "meta": meta,
        **{
            name: [each for each in current.get(name, ()) if not str(each.get("id", "")).startswith(OUR_ITEM)]
            for name in _ITEMS
        },
    }
    return kept | {name: value for name, value in shared.items() if value}


def composed(resource: Resource, others: Mapping[str, Any], *, source: str) -> Element:
    """Return a whole resource; `source` is where ours comes from."""
    ours = resource.elements
    lists = {
        name: [*others.get(name, ()), *ours.get(name, ())]
        for name in ("identifier", *_ITEMS)
        if name in others or name in ours
    }
    return {
        "resourceType": resource.type,
        "id": resource.id,
        **{name: value for name, value in others.items() if name not in _HEAD},
        **ours,
        **lists,
        "meta": {**others.get("meta", {}), "source": source},
    }


def patched(resource: Resource, current: Mapping[str, Any]) -> Element:
    """Return the current resource with the few elements of a partial one."""
    meta = {name: value for name, value in current.get("meta", {}).items() if name in (*_META, "source")}
    return {**current, **resource.elements, "meta": meta}


def same(body: Mapping[str, Any], current: Mapping[str, Any]) -> bool:
    """Say whether writing `body` would change nothing; what a server keeps in `meta` aside."""
    return {**body, "meta": None} == {**current, "meta": None}


def has_digits(value: Any) -> bool:
    """Say whether there are `Digits` at any depth: JSON of another writer than `encoded` loses them."""
    match value:
        case Digits():
            return True
        case Mapping():
            return any(map(has_digits, value.values()))
        case list():
            return any(map(has_digits, value))
    return False


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return the JSON of what is sent, numbers of others with the digits that they came with."""
    return orjson.dumps(body, default=_digits)


def transaction(entries: Sequence[Entry]) -> bytes:
    """Return a Bundle that writes all entries or none."""
    return encoded(
        {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [
                {
                    "resource": entry.body,
                    "request": {"method": "PUT", "url": entry.url}
                    | ({"ifMatch": f'W/"{entry.if_match}"'} if entry.if_match else {}),
                }
                for entry in entries
            ],
        }
    )


def parsed(body: bytes) -> dict[str, Any]:
    """Read a resource that a server answered; its decimals are `Digits`.

    Raises:
        PermanentError: It is none, or too long to be read whole.
    """
    try:
        orjson.loads(body)  # stricter: what it refuses could not be written again
        found = json.loads(body, parse_float=Digits, parse_int=_integer)
    except (ValueError, RecursionError):
        raise PermanentError("answer_unreadable") from None
    if not isinstance(found, dict) or not isinstance(found.get("resourceType"), str):
        raise PermanentError("answer_unreadable")
    return found


def versions(answer: bytes, count: int) -> list[str]:
    """Return the version of each entry of an answered transaction; empty where the server does not say it.

    Raises:
        PermanentError: It is no answer to a transaction of `count` entries.
    """
    entries = parsed(answer).get("entry")
    if not isinstance(entries, list) or len(entries) != count:
        raise PermanentError("answer_unreadable")
    return [_version(each.get("response", {})) for each in entries]


def version_of(etag: str | None) -> str:
    """Return the version in an ETag, in whatever form; empty if there is none."""
    found = _is_version(etag or "")
    return found[1] if found else ""


def refusal(answer: bytes) -> str:
    """Return a constant code for an OperationOutcome; nothing of its text, which may quote what was sent."""
    try:
        outcome = parsed(answer)
    except PermanentError:
        return "fhir_invalid"
    if _says_multiple(answer):
        return "multiple_matches"
    codes = [each.get("code") for each in _issues(outcome) if each.get("severity") in {"error", "fatal"}]
    known = next((code for code in codes if code in _ISSUES), "invalid")
    return "multiple_matches" if known == "multiple-matches" else f"fhir_{known.replace('-', '_')}"


def is_outcome(answer: bytes) -> bool:
    """Say whether a server that has nothing at a place speaks FHIR."""
    try:
        return bool(parsed(answer)["resourceType"] == "OperationOutcome")
    except PermanentError:
        return False


def _digits(value: object) -> orjson.Fragment:
    if isinstance(value, Digits):
        return orjson.Fragment(value.text)
    raise TypeError


def _integer(text: str) -> int | Digits:
    return int(text) if len(text) <= _INTEGER_DIGITS else Digits(text)


def _issues(outcome: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    issues = outcome.get("issue")
    return [each for each in issues if isinstance(each, Mapping)] if isinstance(issues, list) else []


def _version(response: Mapping[str, Any]) -> str:
    found = _version_in(str(response.get("location", "")))
    return version_of(response.get("etag")) or (found[1] if found else "")
