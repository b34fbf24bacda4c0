"""The parts that FHIR R4 resources are made of: ids, references, concepts, quantities and their code systems.

Unknown parts are left out. A value that FHIR cannot hold is refused; values are never invented.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any, Literal, NamedTuple, get_args

from bridge.errors import PermanentError

Element = dict[str, Any]
"""A FHIR element as JSON."""

NDC = "http://hl7.org/fhir/sid/ndc"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
NPI = "http://hl7.org/fhir/sid/us-npi"
NCPDP = "http://terminology.hl7.org/NamingSystem/NCPDPProviderIdentificationNumber"
NCIT = "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl"
UCUM = "http://unitsofmeasure.org"
TASK_CODE = "http://hl7.org/fhir/CodeSystem/task-code"
ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
FLAG_CATEGORY = "http://terminology.hl7.org/CodeSystem/flag-category"
COMMUNICATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/communication-category"
PARTICIPANT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
# Prefix of the element ids of our items in lists that others also write.
OUR_ITEM = "drx"
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"

# Maximum characters of an id (FHIR R4, "id").
_ID_PREFIX, _ID_DIGITS = "drx-", 40
_is_ncit = re.compile(r"C[0-9]+").fullmatch
# Characters that a FHIR string must not hold (FHIR R4, "string": no character below U+0020 but tab, CR and LF).
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


_Identifier = Literal[
    "alert", "fill", "fulfill", "pharmacy-rx-number", "prescriber-order-number", "prescription", "queue", "request",
    "resource", "rx-reference-number", "safety-signal", "tracking-number",
]  # fmt: skip
_IDENTIFIERS: tuple[_Identifier, ...] = get_args(_Identifier)


class Naming(NamedTuple):
    """The identifier systems of a site."""

    base: str  # prefix of our own systems, ending with `:` or `/`
    mrn: str  # system of medical record numbers
    patient: str  # system of the source's patient ids

    def system(self, name: str) -> str:
        """Return one of our own systems."""
        return self.base + name

    def id(self, kind: str, *parts: str) -> str:
        """Return the id of a resource: a digest of `identifier_base`, its kind and its parts."""
        identity = "\0".join((self.base, kind, *parts)).encode()
        return _ID_PREFIX + sha256(identity).hexdigest()[:_ID_DIGITS]

    def owns(self, identifier: Mapping[str, Any]) -> bool:
        """Return whether an identifier is of a system that only we write; others may share the base."""
        return identifier.get("system") in {self.system(name) for name in _IDENTIFIERS}

    def identifier(self, name: _Identifier, value: str | None) -> list[Element]:
        """Return an identifier of one of our own systems, if there is a value."""
        return [found] if (found := _of(self.system(name), value)) else []


def demand_text(value: Any) -> None:
    """Refuse a control character, which FHIR cannot represent, in any string at any depth."""
    match value:
        case str():
            if _CONTROL.search(value):
                raise PermanentError("control_character")
        case Mapping():
            for each in value.values():
                demand_text(each)
        case list() | tuple():
            for each in value:
                demand_text(each)


def filled(text: str | None) -> bool:
    """Return whether a string is not blank: FHIR has no empty strings."""
    return bool(text) and not str(text).isspace()


def pruned(**members: Any) -> Element:
    """Return an element without its empty members; a trailing `_` avoids Python's keywords."""
    return {name.rstrip("_"): value for name, value in members.items() if value not in (None, "", [], {})}


def absent() -> Element:
    """Return the placeholder for a required element whose value is unknown."""
    return {"extension": [{"url": _ABSENT, "valueCode": "unknown"}]}


def reference(resource_type: str, resource_id: str) -> Element:
    """Return a literal reference."""
    return {"reference": f"{resource_type}/{resource_id}"}


def coding(system: str, code: str | None) -> list[Element]:
    """Return a coding if there is a code; runs of spaces become one."""
    return [{"system": system, "code": " ".join(code.split())}] if code is not None and filled(code) else []


def concept(*codings: Iterable[Element], text: str | None = None) -> Element:
    """Return a CodeableConcept, empty without codings and text."""
    return pruned(coding=[each for several in codings for each in several], text=text if filled(text) else None)


def notes(text: str | None) -> list[Element]:
    """Return our annotation."""
    return [{"id": OUR_ITEM, "text": text}] if filled(text) else []


def medication(fields: Mapping[str, Any] | None) -> Element:
    """Return a medication as a concept, or `absent`."""
    if fields is None:
        return absent()
    found = concept(coding(RXNORM, fields.get("rxcui")), coding(NDC, fields.get("ndc")), text=fields.get("description"))
    return found or absent()


def number(text: str | float) -> int | float:
    """Return a decimal as a JSON number, without trailing zeros."""
    value = Decimal(str(text))
    return int(value) if value == value.to_integral_value() else float(value)


def count(value: int | None) -> int | None:
    """Return a count; a negative one is refused."""
    if value is not None and value < 0:  # FHIR R4, "unsignedInt"; the contract's int has 32 bits
        raise PermanentError("negative_count")
    return value


def quantity(value: str | None, unit: str | None) -> Element:
    """Return an amount; a unit that is not an NCI Thesaurus code is given in `unit`."""
    if value is None:
        return {}
    named = " ".join((unit or "").split())
    if _is_ncit(named):
        return {"value": number(value), "system": NCIT, "code": named}
    return pruned(value=number(value), unit=named)


def days(value: int | None) -> Element:
    """Return a number of days."""
    return {} if count(value) is None else {"value": value, "unit": "days", "system": UCUM, "code": "d"}


def instant(text: str) -> str:
    """Return an instant of the contract in milliseconds, the precision that servers keep."""
    whole, point, rest = text.removesuffix("Z").partition(".")
    return f"{whole}.{rest[:3]}Z" if point and rest.strip("0") else f"{whole}Z"


def person_name(fields: Mapping[str, Any]) -> str:
    """Return first and last name."""
    return " ".join(filter(None, (fields.get("first_name"), fields.get("last_name")))).strip()


def practitioner(fields: Mapping[str, Any] | None) -> Element:
    """Return a logical reference to a prescriber, by NPI."""
    return {} if fields is None else _logical("Practitioner", _of(NPI, fields.get("npi")), person_name(fields))


def organization(fields: Mapping[str, Any] | None) -> Element:
    """Return a logical reference to a pharmacy, by NCPDP id."""
    return {} if fields is None else _logical("Organization", _of(NCPDP, fields.get("ncpdp_id")), fields.get("name"))


def patient_identifier(fields: Mapping[str, Any] | None, naming: Naming) -> Element:
    """Return a patient's identifier: the medical record number, else the source's id."""
    known = fields or {}
    return _of(naming.mrn, known.get("mrn")) or _of(naming.patient, known.get("id"))


def patient(fields: Mapping[str, Any] | None, naming: Naming) -> Element:
    """Return a logical reference to a patient, empty without identifier and name."""
    return {} if fields is None else _logical("Patient", patient_identifier(fields, naming), person_name(fields))


def _of(system: str, value: str | None) -> Element:
    return {"system": system, "value": value} if filled(value) else {}


def _logical(resource_type: str, identifier: Element, display: str | None) -> Element:
    named = pruned(identifier=identifier, display=display if filled(display) else None)
    return {"type": resource_type, **named} if named else {}
