"""Compare the CapabilityStatement of a FHIR server with what the consumer needs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WRITTEN = ("MedicationRequest", "MedicationDispense", "Task", "Communication", "Flag", "Provenance")
_R4 = "4.0."
# Version ids, if there are any, are not compared with those of an update (R4, code system versioning-policy).
_NO_IF_MATCH = frozenset({"no-version", "versioned"})


def lacking(statement: Mapping[str, Any], *, chooses_ids: bool, transactions: bool, searches: bool) -> list[str]:
    """Return what the server lacks, a line each; for an optional member only an explicit denial counts."""
    servers = [each for each in statement.get("rest", ()) if each.get("mode") == "server"]
    rest: Mapping[str, Any] = servers[0] if servers else {}
    resources = {each.get("type"): each for each in rest.get("resource", ())}
    found: list[str] = []
    if not str(statement.get("fhirVersion", "")).startswith(_R4):
        found.append("FHIR R4")
    if transactions and "transaction" not in _codes(rest):
        found.append("transaction: set BUNDLE=false")
    for each in WRITTEN:
        found += [f"{each}: {what}" for what in _of_type(resources.get(each, {}), chooses_ids=chooses_ids)]
        if chooses_ids and each != "Provenance":
            found += [f"{each}: {what}" for what in _search(resources.get(each, {}))]
    if searches:
        found += [f"Patient: {what}" for what in _search(resources.get("Patient", {}))]
    return found


def _of_type(resource: Mapping[str, Any], *, chooses_ids: bool) -> Iterator[str]:
    needed = ["read", "update", *(["create"] if chooses_ids else [])]
    yield from (code for code in needed if code not in _codes(resource))
    if resource.get("versioning") in _NO_IF_MATCH:
        yield "If-Match"
    if chooses_ids and not resource.get("conditionalCreate"):
        yield "If-None-Exist"
    if not chooses_ids and resource.get("updateCreate") is False:
        yield "ids that the client chooses: set IDS=server"


def _search(resource: Mapping[str, Any]) -> Iterator[str]:
    if "identifier" not in {each.get("name") for each in resource.get("searchParam", ())}:
        yield "search by identifier"


def _codes(part: Mapping[str, Any]) -> set[Any]:
    interactions: Sequence[Mapping[str, Any]] = part.get("interaction", ())
    return {each.get("code") for each in interactions}
