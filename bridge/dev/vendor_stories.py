"""What vendors push about prescriptions of people who do not exist: one history after the other, seeded."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import orjson

from bridge.dev.story import EPOCH, FIRST_NAMES, LAST_NAMES, MEDICATIONS, PLACES, Outgoing, token

Bodies = Callable[[random.Random], Iterator[dict[str, Any]]]

_STORE, _CLINIC, _ORGANIZATION = "999001", 21, "org:org_dev"


def vendor_deliveries(source: str, seed: int) -> Iterator[Outgoing]:
    """Yield deliveries of one of the vendors of `VENDORS` without end; equal seeds give equal bodies."""
    rng = random.Random(seed)  # noqa: S311 - test traffic, not keys
    while True:
        for body in VENDORS[source](rng):
            yield Outgoing(f"msg_{rng.getrandbits(128):032x}", orjson.dumps(body))


def _digitalrx(rng: random.Random) -> Iterator[dict[str, Any]]:
    """One line of a mail-order pharmacy, whole at each change."""
    description, ndc, _, quantity, days, sig = rng.choice(MEDICATIONS)
    city, postal_code = rng.choice(PLACES)
    line: dict[str, Any] = {
        "StoreID": _STORE,
        "QueueID": str(rng.randrange(1_000_000, 9_999_999)),
        "RxNumber": str(rng.randrange(100_000, 999_999)),
        "RxDate": "1/5/2026",
        "DrugName": description,
        "DrugNDC": ndc,
        "Qty": quantity,
        "DaysSupply": str(days),
        "Instructions": sig,
        "PatCopay": f"{rng.randrange(0, 60)}.00",
        "TrackingNumber": None,
        "RxStatus": "Submitted",
        "LotNumber": None,
        "Patient": {
            "PatientName": f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
            "Patientcity": city,
            "Patientzip": postal_code,
            "SSN": None,
        },
    }
    yield line
    if rng.random() < 0.1:  # noqa: PLR2004 - one in ten
        yield line | {"RxStatus": "RPH REJECT", "Active_Rx": "0"}
        return
    lot = {"LotNumber": f"L{rng.randrange(10_000, 99_999)}"}
    shipped = lot | {"TrackingNumber": f"1Z999AA1{rng.randrange(10**9, 10**10)}", "DeliveryDate": "1/9/2026"}
    for change in ({"RxStatus": "TYPED"}, lot | {"RxStatus": "Packed"}, lot | {"RxStatus": "Approved"}):
        yield line | change
    yield line | shipped | {"RxStatus": None}
    yield line | shipped | {"RxStatus": "Delivered", "DeliveredDate": "2026-01-09T17:22:00Z"}


def _dosespot(rng: random.Random) -> Iterator[dict[str, Any]]:
    """One prescription from its entry to its fill."""
    prescription = rng.randrange(100_000, 999_999)
    steps = [
        ("PrescriptionResult", "PrescriptionStatus", 1, None),
        ("PrescriptionResult", "PrescriptionStatus", 4, "Prescription sent"),
        ("PrescriptionResult", "PrescriptionStatus", 13, "Prescription delivery verified"),
        ("MedicationStatusUpdate", "MedicationStatus", 11, None),
    ]
    if rng.random() < 0.1:  # noqa: PLR2004 - one in ten
        steps[2:] = [("PrescriptionResult", "PrescriptionStatus", 6, "Unable to connect to remote server")]
    for number, (event_type, member, status, details) in enumerate(steps):
        moment = EPOCH + timedelta(minutes=7 * number, seconds=rng.randrange(60))
        yield {
            "EventType": event_type,
            "Data": {
                "PatientId": rng.randrange(1000, 9999),
                "ClinicId": _CLINIC,
                "PrescriptionId": prescription,
                member: status,
                "StatusDateTime": moment.strftime("%Y-%m-%dT%H:%M:%S.0025748Z"),
                "StatusDetails": details,
            },
        }


def _photon(rng: random.Random) -> Iterator[dict[str, Any]]:
    """One order of one or two prescriptions."""
    order = f"ord_{token(rng, 26)}"
    fills = [
        {"id": f"fil_{token(rng, 26)}", "prescription": {"id": f"rx_{token(rng, 26)}", "externalId": token(rng, 8)}}
        for _ in range(rng.randrange(1, 3))
    ]
    written = [("prescription:created", {"id": fill["prescription"]["id"]}) for fill in fills]  # type: ignore[index] # of the dict above
    shipped = {"fulfillment": {"state": "SHIPPED"}}
    placed = [
        (f"order:{kind}", {"id": order, "fills": fills} | more)
        for kind, more in (("placed", {}), ("fulfillment", shipped), ("completed", {}))
    ]
    for number, (kind, data) in enumerate([*written, *placed]):
        yield {
            "id": token(rng, 26),
            "type": f"photon:{kind}",
            "specversion": "1.0",
            "datacontenttype": "application/json",
            "time": (EPOCH + timedelta(minutes=11 * number)).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "subject": order,
            "source": _ORGANIZATION,
            "data": data,
        }


VENDORS: Mapping[str, Bodies] = MappingProxyType({"digitalrx": _digitalrx, "dosespot": _dosespot, "photon": _photon})
