"""Merge our elements into a server's resource, build the transaction, and read the server's response.

We own some elements of a resource, and our items of the lists `identifier`, `note` and `output`. Everything else
belongs to others and is kept.

Every write is conditional: it names the version that it replaces, or that none exists. So a late write never overwrites
a newer version. HAPI FHIR 8.8 ignores `If-None-Match: *` on a PUT, and accepts `If-Match: W/"0"` for a resource that
never existed. A server that follows HTTP supports the former and refuses the latter.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

import orjson

from bridge.errors import PermanentError
from consumers.fhir.elements import OUR_ITEM, Element, Naming
from consumers.fhir.mapping import Resource

FHIR_JSON = "application/fhir+json"
# Elements that only we write: without a value, the element is removed.
_OWNED: Mapping[str, frozenset[str]] = {
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
        "Communication": frozenset({"status", "category", "subject", "about", "sent", "reasonCode", "payload"}),
        "Flag": frozenset({"status", "category", "code", "subject"}),
}  # fmt: skip
# Set by the server, or rewritten each time.
_HEAD = frozenset({"resourceType", "id", "meta", "identifier", "note", "output"})
_ITEMS = ("note", "output")
# Up to this many digits fit into the 64 bits that orjson writes.
_INTEGER_DIGITS = 18
# Members of `meta` that others write.
_META = ("profile", "security", "tag")
_is_version = re.compile(r"""(?:W/)?"?([A-Za-z0-9.-]{1,64})"?""").fullmatch
_version_in = re.compile(r"/_history/([A-Za-z0-9.-]{1,64})$").search
_id_in = re.compile(r"/([A-Za-z0-9.-]{1,64})(?:/_history/[A-Za-z0-9.-]{1,64})?$").search
# FHIR R4, code system issue-type; a server's own messages are not repeated.
_ISSUES = frozenset(
    {
        "invalid", "structure", "required", "value", "invariant", "security", "forbidden", "processing",
        "not-supported", "duplicate", "multiple-matches", "not-found", "deleted", "too-long", "code-invalid",
        "extension", "too-costly", "business-rule", "conflict", "exception", "incomplete",
    }
)  # fmt: skip
# HAPI reports this only in the text, under the code `processing`.
_says_multiple = re.compile(rb"match URL[^\"]{0,2000}matched \d+ resources").search


class ExactNumber(float):
    """A number that keeps its digits: in FHIR, 1.50 and 1.5 differ in precision (R4, "decimal")."""

    def __init__(self, text: str) -> None:
        self.text = text


class BundleEntry(NamedTuple):
    """One write of a transaction."""

    resource: Resource
    body: Element  # the whole resource; without an id the server chooses one
    condition: Mapping[str, str] = MappingProxyType({})  # an element of `Bundle.entry.request` and its value

    @property
    def method(self) -> str:
        """POST if the server chooses the id, else PUT."""
        return "PUT" if "id" in self.body else "POST"

    @property
    def url(self) -> str:
        """Path below the base URL."""
        return "/".join(filter(None, (self.resource.type, self.body.get("id"))))

    @property
    def headers(self) -> dict[str, str]:
        """The condition as HTTP headers, for a write outside of a transaction: `if-match` is `ifMatch`."""
        return {re.sub("[A-Z]", r"-\g<0>", name).lower(): value for name, value in self.condition.items()}


def replaces(version: str) -> dict[str, str]:
    """Return the condition that a version is current; empty if the server has no versions."""
    return {"ifMatch": f'W/"{version}"'} if version else {}


def located(value: Any, places: Mapping[str, str]) -> Any:
    """Return an element with its references replaced; `places` maps old to new."""
    match value:
        case dict():
            return {
                name: places.get(each, each) if name == "reference" else located(each, places)
                for name, each in value.items()
            }
        case list():
            return [located(each, places) for each in value]
    return value


def referred(value: Any) -> set[str]:
    """Return the references at any depth."""
    match value:
        case dict():
            found = set().union(*(referred(each) for each in value.values()))
            return found | {value["reference"]} if "reference" in value else found
        case list():
            return set().union(*(referred(each) for each in value))
    return set()


def urn(resource: Resource) -> str:
    """Return the temporary name of a resource in the transaction that creates it."""
    return uuid5(NAMESPACE_URL, resource.id).urn


def another_person(resource: Resource, current: Mapping[str, Any]) -> bool:
    """Return whether our elements and the current resource name different patients."""
    name = "for" if resource.type == "Task" else "subject"
    new, old = resource.elements.get(name, {}), current.get(name, {})
    if "reference" in new and "reference" in old:
        return bool(new["reference"] != old["reference"])
    one, other = new.get("identifier", {}), old.get("identifier", {})
    return bool(one.get("system") == other.get("system") and one.get("value") != other.get("value"))


def foreign(current: Mapping[str, Any], naming: Naming) -> Element:
    """Return the parts of a resource that others wrote, as `composed` takes them."""
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
    """Return a whole resource; `source` becomes `meta.source`."""
    ours = resource.elements
    lists = {
        name: [*others.get(name, ()), *ours.get(name, ())]
        for name in ("identifier", *_ITEMS)
        if name in others or name in ours
    }
    return {
        "resourceType": resource.type,
        **({"id": resource.id} if resource.id else {}),
        **{name: value for name, value in others.items() if name not in _HEAD},
        **ours,
        **lists,
        "meta": {**others.get("meta", {}), "source": source},
    }


def patched(resource: Resource, current: Mapping[str, Any]) -> Element:
    """Return the current resource with the elements of a partial one."""
    meta = {name: value for name, value in current.get("meta", {}).items() if name in (*_META, "source")}
    return {**current, **resource.elements, "meta": meta}


def same(body: Mapping[str, Any], current: Mapping[str, Any]) -> bool:
    """Return whether writing `body` would change nothing, apart from the server's part of `meta`."""
    return {**body, "meta": None} == {**current, "meta": None}


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return the JSON to send; numbers of others keep their digits."""
    return orjson.dumps(body, default=_digits)


def transaction(entries: Sequence[BundleEntry], base_url: str) -> bytes:
    """Return a Bundle that writes all entries or none."""
    return encoded(
        {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [
                {
                    "fullUrl": f"{base_url}/{entry.url}" if "id" in entry.body else urn(entry.resource),
                    "resource": entry.body,
                    "request": {"method": entry.method, "url": entry.url, **entry.condition},
                }
                for entry in entries
            ],
        }
    )


def parsed(body: bytes) -> dict[str, Any]:
    """Parse a resource from a server's response; decimals become `ExactNumber`. A truncated response is refused."""
    try:
        orjson.loads(body)  # stricter: anything it refuses could not be written back
        found = json.loads(body, parse_float=ExactNumber, parse_int=_integer)
    except (ValueError, RecursionError):
        raise PermanentError("answer_unreadable") from None
    if not isinstance(found, dict) or not isinstance(found.get("resourceType"), str):
        raise PermanentError("answer_unreadable")
    return found


class WriteResult(NamedTuple):
    """The response of a server to one write."""

    status: int  # 0 if there is none
    body: bytes = b""  # its OperationOutcome, if there is one
    id: str = ""  # id or version of the resource, if the server gives its location


def outcomes(response: bytes, count: int) -> list[WriteResult]:
    """Return the outcome of each of the `count` entries of a transaction."""
    entries = parsed(response).get("entry")
    if not isinstance(entries, list) or len(entries) != count:
        raise PermanentError("answer_unreadable")
    responses = [each.get("response", {}) for each in entries]
    return [
        WriteResult(_status(each.get("status")), encoded(each.get("outcome", {})), id_in(each.get("location")))
        for each in responses
    ]


def id_in(location: str | None) -> str:
    """Return the id of a resource in the URL of one of its versions, or of itself; empty if there is none."""
    return _first(_id_in(location or ""))


def version_in(location: str | None) -> str:
    """Return the version in the URL of a version; empty if there is none."""
    return _first(_version_in(location or ""))


def version_of(etag: str | None) -> str:
    """Return the version in an ETag, in any form; empty if there is none."""
    return _first(_is_version(etag or ""))


def _first(found: re.Match[str] | None) -> str:
    return found[1] if found else ""


def refusal(response: bytes) -> str:
    """Return a constant code for an OperationOutcome; its text may quote what was sent."""
    try:
        outcome = parsed(response)
    except PermanentError:
        return "fhir_invalid"
    if _says_multiple(response):
        return "multiple_matches"
    codes = [each.get("code") for each in _issues(outcome) if each.get("severity") in {"error", "fatal"}]
    known = next((code for code in codes if code in _ISSUES), "invalid")
    return "multiple_matches" if known == "multiple-matches" else f"fhir_{known.replace('-', '_')}"


def is_outcome(response: bytes) -> bool:
    """Return whether the body of a 404 shows that the server speaks FHIR."""
    try:
        return bool(parsed(response)["resourceType"] == "OperationOutcome")
    except PermanentError:
        return False


def _digits(value: object) -> orjson.Fragment:
    if isinstance(value, ExactNumber):
        return orjson.Fragment(value.text)
    raise TypeError


def _integer(text: str) -> int | ExactNumber:
    return int(text) if len(text) <= _INTEGER_DIGITS else ExactNumber(text)


def _issues(outcome: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    issues = outcome.get("issue")
    return [each for each in issues if isinstance(each, Mapping)] if isinstance(issues, list) else []


def _status(text: object) -> int:
    first = str(text)[:3]
    return int(first) if first.isascii() and first.isdigit() else 0
