"""Whole histories of prescriptions from a seed: valid to the ingress, and as contradictory as valid can be."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.oracle import states as oracle
from tests.oracle.pen import Body, Pen

MESSAGES = (None, "", "m1", "m2", "4711", "M1")
# Ids that break a text array, a statement or a sort that is not by code point.
REQUESTS = ("rr_1", "19302", "RR_1", "o'clock", '{"a",b}', "NULL", "Ünïcode ✓", "\\x00")
CANCELS = ("cx1", "cx2", "501")
FILLS = (0, 1, 2, 2**31 - 1)
QUEUES = ("q1", "q2", "9000471")
TRACKS = ("1ZA", "1za", "94001")
NETWORK_STATUS = {"kind": "status", "code": "000"}

# Types that move no machine, and what they need.
REMARKS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("prescription.created", {"origin": "new", "awaiting": "signature"}),
    ("prescription.updated", {"changed_fields": ["pharmacy"]}),
    ("epcs.signed", {"dea_schedule": "II", "factors": ["otp_hard"], "signed_at": "2026-01-05T08:00:00Z"}),
    ("epcs.signing_failed", {"dea_schedule": "II", "failure": "locked_out"}),
    ("alert.raised", {"alert_id": "al_1", "category": "other", "workflow": "cancel", "severity": "critical"}),
)


@dataclass(frozen=True, slots=True)
class History:
    """All deliveries about one prescription, each once and with an id of its own, in no order."""

    prescription_id: str
    bodies: Sequence[Body]


def history(seed: int) -> History:
    return write_history(random.Random(seed))  # noqa: S311 - test traffic, not keys


def write_history(rng: random.Random) -> History:
    """Write a history: some of the aspects, each with a few facts that know nothing of each other."""
    pen = Pen(rng)
    for aspect in rng.sample(ASPECTS, rng.choice(ASPECTS_AT_ONCE)):
        pen.choose_vocabulary()
        for _ in range(rng.choice(FACTS_OF_ASPECT)):
            aspect(pen)
    rng.shuffle(pen.bodies)
    return History(pen.prescription_id, pen.bodies)


def arrivals(rng: random.Random, bodies: Sequence[Body]) -> list[list[Body]]:
    """Let bodies arrive in any order, some again and again, in batches of any size; each arrives at least once."""
    coming = [*bodies, *rng.choices(bodies, k=rng.randint(0, len(bodies)))]
    rng.shuffle(coming)
    batches = []
    while coming:
        size = rng.randint(1, len(coming))
        batches.append(coming[:size])
        coming = coming[size:]
    return batches


def write_remark(pen: Pen) -> None:
    event_type, fields = pen.rng.choice(REMARKS)
    pen.tell(event_type, **fields)


def write_transmission(pen: Pen) -> None:
    """Add news of a message of ours, or an answer to one that may never have been sent."""
    ours, theirs = pen.rng.choice(MESSAGES), pen.rng.choice(MESSAGES)
    kind = pen.word(("sent", "processed", "transmission_failed"))
    if kind == "processed":
        pen.tell(
            "prescription.processed",
            message_id=pen.spelled(theirs),
            relates_to_message_id=pen.spelled(ours),
            network_status=NETWORK_STATUS,
        )
    elif kind == "transmission_failed":
        pen.tell(
            "prescription.transmission_failed",
            message_id=pen.spelled(theirs),
            relates_to_message_id=pen.spelled(ours),
            network_status=NETWORK_STATUS,
            retryable=pen.coin(),
            attempt=1,
        )
    else:
        pen.tell(
            "prescription.sent",
            message_id=pen.spelled(ours),
            relates_to_message_id=pen.spelled(theirs),
            network_status=NETWORK_STATUS,
            delivery_mode=pen.word(("erx", "fax", "print")),
            attempt=1,
        )


def write_request(pen: Pen) -> None:
    """Add a pharmacy's question, an answer or a closing."""
    kind = "renewal" if pen.coin() else "change"
    request: Body = {"request_id": pen.spelled(pen.rng.choice(REQUESTS))}
    step = pen.word(("requested", "responded", "closed"))
    if step == "responded":
        _write_answer(pen, kind, request)
    elif step == "closed" and kind == "renewal":
        pen.tell("renewal.closed", **request, reason=pen.word(oracle.CLOSE_REASONS), superseded_by="rr_9")
    elif kind == "renewal":
        basis = pen.word(("pon", "relates_to", "demographics", "none"))
        pen.tell("renewal.requested", **request, matched=pen.coin(), match_basis=basis, follow_up_count="1")
    else:
        code = pen.word(("G", "OS", "P"))
        pen.tell("change.requested", **request, matched=pen.coin(), change_code=code, follow_up_count=0)


def _write_answer(pen: Pen, kind: str, request: Mapping[str, Any]) -> None:
    decisions = oracle.RENEWAL_DECISIONS if kind == "renewal" else oracle.CHANGE_DECISIONS
    fields = {"change_code": pen.word(("G", "OS", "P"))} if kind == "change" else {}
    pen.tell(
        f"{kind}.responded",
        **request,
        **fields,
        decision=pen.word(decisions),
        replacement_prescription_id=pen.rng.choice((None, None, None, "", "rx_new")),
        network_status=NETWORK_STATUS,
    )


def write_cancel(pen: Pen) -> None:
    """Add a cancel request or an answer to one, whichever comes first."""
    request: Body = {"request_id": pen.spelled(pen.rng.choice(CANCELS))}
    if pen.word(("requested", "responded")) == "requested":
        scope = pen.word(("all", "remaining_refills"))
        pen.tell("cancel.requested", **request, scope=scope, network_status=NETWORK_STATUS)
    else:
        pen.tell("cancel.responded", **request, decision=pen.word(oracle.CANCEL_DECISIONS))


def write_fill(pen: Pen) -> None:
    number = pen.rng.choice(FILLS)
    pen.tell(
        "fill.status_changed",
        fill_number=str(number) if pen.coin() else number,
        fill_status=pen.word(oracle.FILL_WORDS),
    )


def write_line(pen: Pen) -> None:
    """Add workflow news of one of several pharmacy lines; some rejects are final and some are not."""
    pen.tell(
        "fulfillment.status_changed",
        queue_id=pen.spelled(pen.rng.choice(QUEUES)),
        pharmacy_rx_number=pen.rng.choice((None, "700101", "700273")),
        fulfillment_status=pen.word(oracle.LINE_WORDS),
        active=pen.rng.choice((None, True, False)),
    )


def write_dead_line(pen: Pen) -> None:
    """Add a final reject."""
    queue = pen.rng.choice(QUEUES)
    pen.tell("fulfillment.status_changed", queue_id=queue, fulfillment_status="rejected", active=False)


def write_parcel(pen: Pen) -> None:
    pen.tell(
        "shipment.status_changed",
        carrier=pen.word(("ups", "usps", "other")),
        tracking_number=pen.rng.choice(TRACKS),
        shipment_status=pen.word(oracle.PARCEL_WORDS),
    )


# Often few: the display word of a history with all of them is hardly ever that of a quiet machine.
ASPECTS_AT_ONCE = (1, 1, 2, 2, 3, 5, 8)
FACTS_OF_ASPECT = (1, 2, 3, 5, 12)
ASPECTS: tuple[Callable[[Pen], None], ...] = (
    write_remark,
    write_transmission,
    write_request,
    write_cancel,
    write_fill,
    write_line,
    write_dead_line,
    write_parcel,
)
