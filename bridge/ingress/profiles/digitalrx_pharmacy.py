"""The flat push of DigitalRX, a pharmacy system: the whole record of one prescription line at each change.

It says neither what changed nor when, its names drift in case and spelling between installations, and its numbers are
text or numbers. So the status is a word, or where there is none what the first date or number in a table says; the time
is that of receipt, since dates of some statuses beside receipts of others would be two clocks in one machine: a *typed*
at its receipt would beat a *packed* that is dated an hour earlier.

What no event needs and nobody should hold is dropped for good: SSN, insurance, employer and injury.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from types import MappingProxyType

from bridge.errors import ConfigError
from bridge.event import Delivery, ParkReason
from bridge.ingress.profiles.assemble import Draft, Reading, Said, compose, escaped
from bridge.ingress.profiles.plan import text_of_id
from bridge.ingress.profiles.profile import Mapped, refuse_unknown
from bridge.ingress.profiles.words import (
    day_of,
    folded,
    instant_of,
    is_given,
    is_plain_day,
    is_scalar_given,
    key_of,
    prefix_of,
    truth_of,
    zone_of,
)

PREFIX = "q:"
ZONE = "America/Chicago"  # where the vendor is; its dates have no zone

_QUEUE = ("QueueID", "queue_id", "queueId")
_STORE = ("StoreID", "store_id", "storeId")
_TRACKING = ("TrackingNumber", "tracking_number")
_WORDS = ("Statuswf", "Status", "RxStatus", "new_status")

_STATUS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("submitted", "active", "fileonly", "pending"), "received"),
        "billing": "billing",
        **dict.fromkeys(("billed", "processing", "typed"), "in_progress"),
        "packed": "packed",
        "approved": "approved",
        "paused": "on_hold",
        **dict.fromkeys(("picked up", "shipped"), "handed_to_carrier"),
        **dict.fromkeys(("delivered", "completed"), "delivered"),
        **dict.fromkeys(("reject", "rejected", "rph reject", "rph rejected"), "rejected"),
        **dict.fromkeys(("cancelled", "canceled", "denied", "void", "voided"), "rejected"),
    }
)
# What a push without a word says by the first of these that it has. `DeliveryDate` is a plan and never decides.
_SIGNS = (
    (("DeliveredDate",), "delivered"),
    (("PickupDate",), "handed_to_carrier"),
    (_TRACKING, "handed_to_carrier"),
    (("ApprovedDate", "ApprovedByInitials"), "approved"),
    (("PackDateTime", "PrintedDate"), "packed"),
)
_BILLING = frozenset({"billed", "cash", "pending"})

# Carriers by the shape of their numbers, as they publish it.
_CARRIERS = (
    (re.compile(r"1Z[0-9A-Z]{16}", re.IGNORECASE), "ups"),
    (re.compile(r"[0-9]{20,22}"), "usps"),
    (re.compile(r"[0-9]{12}|[0-9]{15}"), "fedex"),
    (re.compile(r"[0-9]{10}"), "dhl"),
)

# Looked for at any depth, in names without case and separators, since these drift: PatientSSN, social_security_number,
# InsuranceID, EmployerName, date-of-injury. `ssn` within a name counts unless a vowel is before it, as in BusinessName,
# AddressNumber and ClassName.
_DROPPED = re.compile("socialsecurity|insurance|employer|injury|^ssn|ssn$|(?<![aeiou])ssn")
# A word of its own in the name as it is written counts whatever is before it: SpouseSsnLast4, spouse_ssn_last4.
_SSN = re.compile(r"(?<![A-Z])SSN(?![a-z])|Ssn(?![a-z])|(?<![A-Za-z])ssn(?![A-Za-z])")


def configure(options: Mapping[str, str]) -> DigitalRx:
    """Build the profile.

    Args:
        options: `account_id`, of deliveries without a store (required); `zone`, of dates without one; `prefix`,
            of keys and accounts, else `q:`.

    Raises:
        ConfigError: An option is unknown, missing, or cannot be used.
    """
    refuse_unknown(options, "account_id", "zone", "prefix")
    if not options.get("account_id"):
        msg = "options.account_id is required: deliveries without a store are of this account"
        raise ConfigError(msg)
    return DigitalRx(options["account_id"], zone_of(options, ZONE), prefix_of(options, PREFIX))


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a line as it was found; `name` is the table's spelling of it."""

    value: object
    name: str
    pointer: str


@dataclass(slots=True)
class Line:
    """The object of one prescription line, its members found by names of any case.

    Attributes:
        members: Folded name -> every spelling of it, in the order of the body.
        pointer: Of the line in the body.
        path: The same without positions.
    """

    members: dict[str, list[tuple[str, object]]]
    pointer: str
    path: str
    _empty: Member = field(init=False)

    def __post_init__(self) -> None:
        self._empty = Member(None, "", "")

    def find(self, names: Iterable[str]) -> Member:
        """Give the first member of these names that says something, or one that says nothing."""
        for name in names:
            for spelling, value in self.members.get(name.casefold(), ()):
                if is_given(value):
                    return Member(value, f"{self.path}/{name}", f"{self.pointer}/{escaped(spelling)}")
        return self._empty


@dataclass(frozen=True, slots=True)
class DigitalRx:
    """The profile with its options."""

    account_id: str
    zone: tzinfo | None
    prefix: str = PREFIX

    ARRAYS = True
    # Equal bytes may be another fact: packed, approved, packed again. Ids of deliveries change after this time.
    BUCKET_S = 600

    @property
    def PREFIX(self) -> str:  # noqa: N802 - as in profiles that are modules
        """With what its keys begin."""
        return self.prefix

    def map(self, delivery: Delivery, document: object, /) -> Mapped | ParkReason:
        """Turn a push into the events of its line; see `Profile.map`."""
        reading = Reading(id=delivery.id, time=delivery.received_at, flags={"time_of_receipt"})
        line = self._line(document, reading)
        if isinstance(line, ParkReason):
            return line
        queue, store = line.find(_QUEUE), line.find(_STORE)
        key = self._key(line, store, queue)
        if isinstance(key, ParkReason):
            return key
        if any(len(spellings) > 1 for spellings in line.members.values()):
            reading.flags.add("name_ambiguous")
        reading.account_id = f"{self.prefix}{text_of_id(store.value)}" if store.name else self.account_id
        reading.claimed = {queue.pointer, store.pointer} - {""}
        reading.drops = is_dropped
        fulfillment = _fulfillment(line, key, queue, reading)
        drafts = [fulfillment]
        tracking = line.find(_TRACKING)
        if _text(tracking.value, reading) is not None:
            delivered = fulfillment.said["fulfillment_status"].value == "delivered"
            drafts.append(self._shipment(line, key, tracking, reading, delivered=delivered))
        return compose(delivery, document, drafts, reading, key=key)

    def _line(self, document: object, reading: Reading) -> Line | ParkReason:
        """Give the line that a body is about; of several with one queue id, the one that counts."""
        if isinstance(document, dict):
            return _line_of(document, "", "")
        items = document if isinstance(document, list) else []
        lines = [_line_of(item, f"/{index}", "/*") for index, item in enumerate(items) if isinstance(item, dict)]
        keys = {self._key(line, line.find(_STORE), line.find(_QUEUE)) for line in lines}
        if len(lines) != len(items) or len(keys) > 1:
            return ParkReason("unusable", "wrong_type", f"/*/{_QUEUE[0]}")
        if not lines:
            return ParkReason("unusable", "no_key", f"/*/{_QUEUE[0]}")
        if len(lines) > 1:
            reading.flags.add("array_chosen")
        return max(lines, key=self._rank)

    def _key(self, line: Line, store: Member, queue: Member) -> str | ParkReason:
        if not queue.name:
            return ParkReason("unusable", "no_key", f"{line.path}/{_QUEUE[0]}")
        key = key_of(self.prefix, *([store.value] if store.name else []), queue.value)
        if key is not None:
            return key
        at_fault = queue if key_of(self.prefix, queue.value) is None or not store.name else store
        return ParkReason("unusable", "bad_key", at_fault.name)

    def _rank(self, line: Line) -> tuple[int, str, int, str]:
        """Rank the lines of one queue id: no reject, a reject that may still change, the newest, the highest number."""
        status, _ = _status(line)
        dead = status == "rejected" and truth_of(line.find(("Active_Rx", "ActiveRx")).value) is False
        try:
            date = instant_of(str(line.find(("RxDate",)).value), self.zone, set()).isoformat()
        except (ValueError, OverflowError):
            date = ""
        number = text_of_id(line.find(("RxNumber",)).value) or ""
        return 0 if dead else 1 if status == "rejected" else 2, date, len(number.lstrip("0")), number

    def _shipment(self, line: Line, key: str, tracking: Member, reading: Reading, *, delivered: bool) -> Draft:
        number = (text_of_id(tracking.value) or "").strip()
        draft = Draft("shipment.status_changed", 2, key)
        draft.constants = {
            "carrier": next((carrier for shape, carrier in _CARRIERS if shape.fullmatch(number)), "other"),
            "shipment_status": "delivered" if delivered else "label_created",
        }
        draft.said["tracking_number"] = Said(number, tracking.name, tracking.pointer)
        planned = line.find(("DeliveryDate",))
        if type(planned.value) is str:
            try:
                day = day_of(planned.value).isoformat()
            except (ValueError, OverflowError):
                reading.flags.add("field_unfit")
            else:
                whole = planned.pointer if is_plain_day(planned.value) else ""
                draft.said["estimated_delivery"] = Said(day, planned.name, whole)
        elif planned.value is not None:
            reading.flags.add("field_unfit")
        if delivered:
            self._delivered_at(line, draft, reading)
        return draft

    def _delivered_at(self, line: Line, draft: Draft, reading: Reading) -> None:
        arrived = line.find(("DeliveredDate",))
        if arrived.value is None:
            return
        try:
            moment = instant_of(arrived.value if type(arrived.value) is str else "", self.zone, reading.flags)
        except (ValueError, OverflowError):
            reading.flags.add("field_unfit")
            return
        draft.said["delivered_at"] = Said(moment.isoformat(), arrived.name, arrived.pointer)


def _line_of(item: dict[str, object], pointer: str, path: str) -> Line:
    members: dict[str, list[tuple[str, object]]] = {}
    for name, value in item.items():
        members.setdefault(name.casefold(), []).append((name, value))
    return Line(members, pointer, path)


def _status(line: Line) -> tuple[str, Member]:
    """Say the fulfilment status of a line, and the word that says it if there is one."""
    for name in _WORDS:
        word = line.find((name,))
        if type(word.value) is str:
            return _STATUS.get(folded(word.value), word.value), word
    for names, status in _SIGNS:
        if any(is_scalar_given(line.find((name,)).value) for name in names):
            return status, line.find(())
    return "received", line.find(())


def _fulfillment(line: Line, key: str, queue: Member, reading: Reading) -> Draft:
    draft = Draft("fulfillment.status_changed", 1, key)
    status, word = _status(line)
    if any(not isinstance(line.find((name,)).value, str | None) for name in _WORDS):
        reading.flags.add("field_unfit")
    draft.said = {
        "queue_id": Said(queue.value, queue.name, queue.pointer),
        "fulfillment_status": Said(status, word.name or line.path, word.pointer),
        "raw_status": Said(word.value, word.name, word.pointer),
    }
    for name, names in (("pharmacy_rx_number", ("RxNumber",)), ("lot_number", ("LotNumber",))):
        found = line.find(names)
        draft.said[name] = Said(_text_or_same(found.value, reading), found.name, found.pointer)
    active = line.find(("Active_Rx", "ActiveRx"))
    truth = truth_of(active.value)
    # What is no truth reaches the reader, which finds it unfit.
    draft.said["active"] = Said(active.value if truth is None else truth, active.name, active.pointer)
    billing = line.find(("BillingStatus",))
    billed = folded(billing.value) if type(billing.value) is str else ""
    draft.said["billing_status"] = Said(billed if billed in _BILLING else billing.value, billing.name, billing.pointer)
    price = line.find(("PatPay", "PatCopay"))
    value = price.value.strip() if type(price.value) is str else price.value
    draft.said["patient_pay"] = Said(value, price.name, price.pointer)
    return draft


def _text(item: object, reading: Reading) -> str | None:
    """Read text that this vendor also sends as an integer."""
    if type(item) is int:
        reading.flags.add("integer_as_string_id")
    return text_of_id(item)


def _text_or_same(item: object, reading: Reading) -> object:
    text = _text(item, reading)
    return item if text is None else text


def is_dropped(name: str) -> bool:
    """Tell the name of a member that nobody should hold, in any spelling that holds a word of the list."""
    plain = name.casefold()
    if not plain.isalnum():
        plain = "".join(filter(str.isalnum, plain))
    return bool(_DROPPED.search(plain)) or ("ssn" in plain and bool(_SSN.search(name)))
