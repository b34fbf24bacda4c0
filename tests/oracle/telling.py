"""Short words for telling a story: each gives an event's type and what its `data` says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

News = tuple[str, dict[str, Any]]

STARTS_AT = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


def sent(message: str | None) -> News:
    return "prescription.sent", {"message_id": message}


def processed(message: str | None) -> News:
    return "prescription.processed", {"message_id": "theirs", "relates_to_message_id": message}


def failed(message: str | None, *, retryable: bool = True) -> News:
    fields = {"message_id": "theirs", "relates_to_message_id": message, "retryable": retryable}
    return "prescription.transmission_failed", fields


def renewal(request: str) -> News:
    return "renewal.requested", {"request_id": request}


def change(request: str) -> News:
    return "change.requested", {"request_id": request}


def renewed(request: str, decision: str, **fields: Any) -> News:
    return "renewal.responded", {"request_id": request, "decision": decision} | fields


def changed(request: str, decision: str, **fields: Any) -> News:
    return "change.responded", {"request_id": request, "decision": decision} | fields


def closed(request: str, reason: str = "expired") -> News:
    return "renewal.closed", {"request_id": request, "reason": reason}


def cancel(request: str = "cx1") -> News:
    return "cancel.requested", {"request_id": request}


def cancelled(decision: str, request: str = "cx1") -> News:
    return "cancel.responded", {"request_id": request, "decision": decision}


def fill(status: str, number: int = 0) -> News:
    return "fill.status_changed", {"fill_number": number, "fill_status": status}


def line(status: str, queue: str = "q1", *, active: bool | None = None) -> News:
    return "fulfillment.status_changed", {"queue_id": queue, "fulfillment_status": status, "active": active}


def parcel(status: str, track: str = "1Z") -> News:
    return "shipment.status_changed", {"tracking_number": track, "shipment_status": status}


def bodies(story: Sequence[News]) -> list[dict[str, Any]]:
    """Give a story its ids and times, a second apart."""
    return [
        {
            "id": f"evt_{number}",
            "type": event_type,
            "timestamp": (STARTS_AT + timedelta(seconds=number)).isoformat(),
            "data": fields,
        }
        for number, (event_type, fields) in enumerate(story)
    ]
