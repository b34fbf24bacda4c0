"""MedicationRequest: the order, and the changes and renewals of the order that a pharmacy proposes.

An order becomes `completed` only with `complete`: no event reports that its refills are used up, so fills are counted.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from consumers.fhir import elements as fhir
from consumers.fhir.elements import Element, Naming
from consumers.lifecycle.facts import Document
from consumers.lifecycle.machines import REJECTED
from consumers.lifecycle.roll_up import State
from consumers.lifecycle.whole import Fields, newest_of, shared

TYPE = "MedicationRequest"
# Keys of requests that match no prescription.
_REQUEST_PREFIX = "req:"
# Status of a proposal by the prescriber's decision; after `pending` the proposal stays active.
_ANSWERED = {"denied": "cancelled", "denied_new_rx_to_follow": "cancelled", "pending": "active"}
# After such a decision the number of refills is unknown: the number may be a new total or additional.
_MORE_FILLS = frozenset({"approved", "approved_with_changes"})


class Subject(NamedTuple):
    """A prescription, prepared for mapping."""

    key: str
    document: Document
    state: State
    naming: Naming
    found: Element | None = None  # a reference to the server's Patient, if it was searched for
    complete: bool = False  # an order is `completed` once as many fills as it allows are dispensed

    @property
    def patient(self) -> Element:
        """Return the reference to the patient."""
        return self.found or fhir.patient(shared(self.document, "patient"), self.naming)

    @property
    def order(self) -> Element | None:
        """Return the reference to the order; None for a request without a matching order."""
        return None if self.key.startswith(_REQUEST_PREFIX) else fhir.reference(TYPE, order_id(self.key, self.naming))

    @property
    def orders(self) -> list[Element]:
        """Return the reference to the order as a list, empty without an order."""
        return [] if self.order is None else [self.order]


def order_id(key: str, naming: Naming) -> str:
    """Return the id of a prescription's MedicationRequest."""
    return naming.id("order", key)


def order(subject: Subject) -> Element:
    """Return the order's elements."""
    document, naming = subject.document, subject.naming
    fields = shared(document, "medication")
    status, reason = _status(subject)
    return fhir.pruned(
        identifier=[
            *naming.identifier("prescription", subject.key),
            *naming.identifier("prescriber-order-number", shared(document, "prescriber_order_number")),
            *naming.identifier("rx-reference-number", shared(document, "rx_reference_number")),
        ],
        status=status,
        statusReason=reason,
        intent="order",
        **_content(subject, fields, repeats=(fields or {}).get("refills"), pharmacy=shared(document, "pharmacy")),
    )


def proposal_ids(subject: Subject, kind: str, request_id: str) -> list[str]:
    """Return the ids of a request's proposals; `kind` is `renewal` or `change`."""
    asked = newest_of(subject.document, f"{kind}.requested").get(request_id)
    if asked is None:
        return []
    return [
        subject.naming.id("proposal", subject.key, kind, request_id, str(place))
        for place in range(len(_proposed(subject, kind, asked[1])))
    ]


def proposals(subject: Subject) -> list[tuple[str, Element]]:
    """Return the id and elements of each proposal: one per requested medication."""
    found: list[tuple[str, Element]] = []
    for kind in ("renewal", "change"):
        for request_id, (stamp, asked) in sorted(newest_of(subject.document, f"{kind}.requested").items()):
            status = _proposal_status(subject, kind, request_id)
            ids = proposal_ids(subject, kind, request_id)
            for identity, fields in zip(ids, _proposed(subject, kind, asked), strict=True):
                repeats = asked.get("refills_requested") if kind == "renewal" else (fields or {}).get("refills")
                # Not the order's pharmacy: another pharmacy may ask.
                pharmacy = asked.get("pharmacy")
                elements = {
                    "identifier": subject.naming.identifier("request", request_id),
                    "status": status,
                    "intent": "proposal",
                    "requester": {},
                    "priorPrescription": subject.order,
                    **_content(subject, fields, repeats=repeats, pharmacy=pharmacy),
                    "authoredOn": fhir.instant(stamp[0]),
                }
                elements["requester"] = fhir.organization(pharmacy)  # a pharmacy asks, not the prescriber
                found.append((identity, fhir.pruned(**elements)))
    return found


def transmission_failure(document: Document) -> Fields | None:
    """Return the newest event about a failed transmission."""
    failures = newest_of(document, "prescription.transmission_failed").values()
    return max(failures)[1] if failures else None


def network_reason(fields: Mapping[str, Any], naming: Naming) -> Element:
    """Return why the network refused a message, in the network's own codes."""
    status = fields["network_status"]
    return fhir.concept(
        fhir.coding(naming.system("network-status"), status.get("code")),
        fhir.coding(naming.system("network-description"), status.get("description_code")),
        text=status.get("description"),
    )


def _proposed(subject: Subject, kind: str, asked: Fields) -> list[Fields | None]:
    if kind == "change":
        return list(asked.get("medications_requested") or [])
    return [asked.get("medication_dispensed") or shared(subject.document, "medication")]


def _proposal_status(subject: Subject, kind: str, request_id: str) -> str:
    answer = newest_of(subject.document, f"{kind}.responded").get(request_id)
    status = "active" if answer is None else _ANSWERED.get(answer[1]["decision"], "completed")
    closed = request_id in newest_of(subject.document, f"{kind}.closed")
    return "cancelled" if closed and status == "active" else status


def _status(subject: Subject) -> tuple[str, Element]:
    document, state, naming = subject.document, subject.state, subject.naming
    if state.order_status == "cancelled":
        return ("cancelled" if _all_cancelled(document) else "stopped"), {}
    if state.order_status == "replaced":
        return "stopped", fhir.concept(text="Replaced by another prescription")
    if is_rejected(document):
        return "stopped", fhir.concept(text="Rejected by the pharmacy")
    failure = transmission_failure(document)
    if state.transmission == "failed" and failure is not None and not failure["retryable"]:
        return "on-hold", network_reason(failure, naming)
    if state.transmission != "draft" or "epcs.signed" in document.get("said", {}):
        return ("completed" if subject.complete and _used_up(document) else "active"), {}
    # A stub is a prescription known only from other events; it may or may not be a draft.
    return ("unknown" if state.stub else "draft"), {}


def is_rejected(document: Document) -> bool:
    """Return whether every line is permanently rejected."""
    lines = document["lines"].values()
    return bool(lines) and all(word == REJECTED for _, word in lines)


def _used_up(document: Document) -> bool:
    """Return whether the first fill and all refills are dispensed in full; False if the number is unknown."""
    refills: int | None = (shared(document, "medication") or {}).get("refills")
    if refills is None:
        return False
    for kind in ("renewal", "change"):
        if any(fields["decision"] in _MORE_FILLS for _, fields in newest_of(document, f"{kind}.responded").values()):
            return False
    dispensed = [number for number, (_, word) in document["fills"].items() if word == "dispensed"]
    return len(dispensed) > refills


def _all_cancelled(document: Document) -> bool:
    """Return whether the whole order was cancelled; False if unknown: the patient may have taken a part."""
    asked = newest_of(document, "cancel.requested")
    return any(
        fields["decision"] == "approved" and request_id in asked and asked[request_id][1]["scope"] == "all"
        for request_id, (_, fields) in newest_of(document, "cancel.responded").items()
    )


def _content(subject: Subject, fields: Fields | None, *, repeats: int | None, pharmacy: Fields | None) -> Element:
    document = subject.document
    known = fields or {}
    sig = known.get("sig")
    allowed = known.get("substitution_allowed")
    return fhir.pruned(
        medicationCodeableConcept=fhir.medication(fields),
        subject=subject.patient or fhir.absent(),
        authoredOn=known.get("written_date"),
        requester=fhir.practitioner(shared(document, "prescriber")),
        dosageInstruction=[{"text": sig}] if fhir.filled(sig) else [],
        dispenseRequest=fhir.pruned(
            validityPeriod=fhir.pruned(start=known.get("effective_date")),
            numberOfRepeatsAllowed=fhir.count(repeats),
            quantity=fhir.quantity(known.get("quantity"), known.get("quantity_unit")),
            expectedSupplyDuration=fhir.days(known.get("days_supply")),
            performer=fhir.organization(pharmacy),
        ),
        substitution=None if allowed is None else {"allowedBoolean": allowed},
        note=fhir.notes(known.get("note")),
    )
