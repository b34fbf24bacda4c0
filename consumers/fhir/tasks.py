"""Task: the request to fill an order, and each request about it, with their outcomes."""

from collections.abc import Iterator

from consumers.fhir import elements as fhir
from consumers.fhir.elements import Element, Naming
from consumers.fhir.orders import TYPE as ORDER
from consumers.fhir.orders import Subject, is_rejected, network_reason, proposal_ids, transmission_failure
from consumers.lifecycle.facts import Document
from consumers.lifecycle.machines import DELIVERED
from consumers.lifecycle.whole import Fields, newest_of

TYPE = "Task"
_CODES = {"renewal": "approve", "change": "change", "cancel": "abort"}
# Status of a renewal or change request by its response.
_DECIDED = {
    **dict.fromkeys(("approved", "approved_with_changes", "replace", "validated"), "completed"),
    **dict.fromkeys(("denied", "denied_new_rx_to_follow"), "rejected"),
    "pending": "on-hold",
    "no_response": "failed",
}


def tasks(subject: Subject) -> list[tuple[str, Element]]:
    """Return the id and elements of each task: to fill the order, and to respond to each request."""
    naming, fulfill = subject.naming, _fulfill(subject)
    found = [(naming.id("task", subject.key, "fulfill", ""), fulfill)] if fulfill else []
    for kind in _CODES:
        types = {f"{kind}.{step}" for step in ("requested", "responded", "closed")}
        requests = {request_id for event_type in types for request_id in newest_of(subject.document, event_type)}
        found += [
            (naming.id("task", subject.key, kind, each), _request(subject, kind, each)) for each in sorted(requests)
        ]
    return found


def _fulfill(subject: Subject) -> Element:
    document, naming = subject.document, subject.naming
    status, reason, business = "requested", Element(), ""
    failed = transmission_failure(document)
    if document["messages"]:
        if subject.state.transmission == "failed" and failed is not None:
            status = "on-hold" if failed["retryable"] else "failed"
            reason = network_reason(failed, naming)
        elif subject.state.transmission == "processed":
            status = "accepted"
        else:
            business = _sent(document)
    else:
        refusal = _signing_failure(document)
        if refusal is not None:
            status, reason = "on-hold", fhir.concept(fhir.coding(naming.system("signing-failure"), refusal["failure"]))
        elif not document["known"] and "epcs.signed" not in document.get("said", {}):
            return {}  # known only from later events: it may never have been ordered
    ended = _ended(subject)
    if ended:
        status, reason, business = ended, Element(), ""
    return fhir.pruned(
        identifier=naming.identifier("fulfill", subject.key),
        status=status,
        statusReason=reason,
        businessStatus=fhir.concept(text=business),
        intent="order",
        code=fhir.concept(fhir.coding(fhir.TASK_CODE, "fulfill")),
        focus=subject.order,
        for_=subject.patient,
    )


def _ended(subject: Subject) -> str:
    """Return the status of a finished task, else an empty string. A dispensed order takes precedence."""
    state = subject.state
    words = {word for _, word in subject.document["lines"].values()}
    if state.dispense == "dispensed" or DELIVERED in {state.shipment, *words}:
        return "completed"
    if state.order_status in {"cancelled", "replaced"}:
        return "cancelled"
    return "rejected" if is_rejected(subject.document) else ""


def _sent(document: Document) -> str:
    sent = newest_of(document, "prescription.sent").values()
    return f"sent {max(sent)[1]['network_status']['code']}" if sent else ""


def _signing_failure(document: Document) -> Fields | None:
    """Return the failed signing unless a newer signature succeeded."""
    found = [
        (stamp, event_type, fields)
        for event_type in ("epcs.signed", "epcs.signing_failed")
        for stamp, fields in newest_of(document, event_type).values()
    ]
    if not found:
        return None
    _, event_type, fields = max(found, key=lambda each: each[0])
    return fields if event_type == "epcs.signing_failed" else None


def _request(subject: Subject, kind: str, request_id: str) -> Element:
    document, naming = subject.document, subject.naming
    asked = newest_of(document, f"{kind}.requested").get(request_id)
    answer = newest_of(document, f"{kind}.responded").get(request_id)
    closed = newest_of(document, f"{kind}.closed").get(request_id)
    decided = {} if answer is None else answer[1]
    why = None if asked is None else asked[1].get("reason")
    status = "requested" if answer is None else _DECIDED[decided["decision"]]
    if closed is not None and (answer is None or decided["decision"] == "pending"):
        status, reason = "cancelled", fhir.concept(fhir.coding(naming.system("closing-reason"), closed[1]["reason"]))
    else:
        reason = fhir.concept(fhir.coding(naming.system("denial-reason"), decided.get("denial_reason_code")))
    decision = fhir.concept(fhir.coding(naming.system("decision"), decided.get("decision")))
    proposed = [] if kind == "cancel" else proposal_ids(subject, kind, request_id)
    return fhir.pruned(
        identifier=naming.identifier("request", request_id),
        status=status,
        statusReason=reason,
        businessStatus=decision,
        intent="order" if kind == "cancel" else "proposal",
        code=fhir.concept(
            fhir.coding(fhir.TASK_CODE, _CODES[kind]),
            fhir.coding(naming.system("change-code"), None if asked is None else asked[1].get("change_code")),
        ),
        description=why if fhir.filled(why) else None,
        focus=fhir.reference(ORDER, proposed[0]) if proposed else subject.order,
        basedOn=subject.orders if proposed else [],
        for_=subject.patient,
        authoredOn=None if asked is None else fhir.instant(asked[0][0]),
        note=fhir.notes(decided.get("note")),
        output=[
            {"id": f"{fhir.OUR_ITEM}-{name}", "type": fhir.concept(fhir.coding(naming.system("output"), name)), **value}
            for name, value in _outputs(decided, naming)
        ],
    )


def _outputs(decided: Fields, naming: Naming) -> Iterator[tuple[str, Element]]:
    """Yield the details of a response by name."""
    refills = fhir.count(decided.get("refills_approved"))
    if refills is not None:
        yield "refills-approved", {"valueUnsignedInt": refills}
    replacement = decided.get("replacement_prescription_id")
    if fhir.filled(replacement):
        # By identifier: its MedicationRequest may not exist yet.
        identifier = {"system": naming.system("prescription"), "value": replacement}
        yield "replacement", {"valueReference": {"type": ORDER, "identifier": identifier}}
    authorization = decided.get("prior_authorization_number")
    if fhir.filled(authorization):
        yield "prior-authorization", {"valueString": authorization}
    if "expected_response_date" in decided:
        yield "response-expected", {"valueDate": decided["expected_response_date"]}
