"""The webhooks of Photon: CloudEvents 1.0 in JSON, an order with its fills or a prescription.

An order is one delivery and may hold several prescriptions: each fill with one becomes an event of its own, numbered by
its position in `data.fills`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from types import MappingProxyType
from typing import NamedTuple

from bridge.contract.fields import UNKNOWN
from bridge.errors import ConfigError
from bridge.event import Delivery, ParkReason
from bridge.ingress.profiles.assemble import PLANS, Draft, Reading, Said, compose
from bridge.ingress.profiles.plan import Pass, text_of_id
from bridge.ingress.profiles.profile import Mapped, refuse_unknown
from bridge.ingress.profiles.words import folded, is_given, key_of, prefix_of, zone_of

PREFIX = "ph:"
# As ids of deliveries are (docs/contract.md §1): it stands in a header of the record.
_ID = re.compile(r"[!-~]{1,200}")
_OF_ORGANIZATION = "org:"


class Fact(NamedTuple):
    """What an event of theirs says in native words.

    Attributes:
        type: One of the twenty types.
        constants: Fields that the contract requires and the vendor lacks.
        by_fill: It is about each fill of an order; else about a prescription.
        stated: The state of the fulfilment is its status.
        request: Field that is the order's id.
    """

    type: str
    constants: Mapping[str, object]
    by_fill: bool = True
    stated: bool = False
    request: str = ""


_SENT = Fact(
    "prescription.sent",
    {"delivery_mode": "erx", "attempt": 1, "network_status.kind": "status", "network_status.code": "000"},
)
_FACTS: Mapping[str, Fact] = MappingProxyType(
    {
        "photon:prescription:created": Fact(
            "prescription.created", {"origin": "new", "awaiting": "pharmacy"}, by_fill=False
        ),
        "photon:order:placed": _SENT,
        "photon:order:rerouted": _SENT,
        "photon:order:canceled": Fact("cancel.responded", {"decision": "approved"}, request="request_id"),
        "photon:order:fulfillment": Fact("fulfillment.status_changed", {}, stated=True),
        "photon:order:completed": Fact("fulfillment.status_changed", {"fulfillment_status": "delivered"}),
    }
)


def configure(options: Mapping[str, str]) -> Photon:
    """Build the profile.

    Args:
        options: `account_id`, of events without a source; `zone`, of times without one, else UTC; `states`, the table
            of the fulfilment states, such as `READY=packed,SHIPPED=handed_to_carrier`; `prefix`, of keys and accounts,
            else `ph:`.

    Raises:
        ConfigError: An option is unknown or cannot be used.
    """
    refuse_unknown(options, "account_id", "zone", "states", "prefix")
    states = _states(options.get("states", ""))
    return Photon(options.get("account_id", ""), zone_of(options), states, prefix_of(options, PREFIX))


def _states(table: str) -> Mapping[str, str]:
    """Read the table of states; their words stand in no page that Photon publishes."""
    states = {}
    put = PLANS["fulfillment.status_changed"].members.puts["fulfillment_status"]
    for entry in filter(None, (entry.strip() for entry in table.split(","))):
        state, equals, status = (part.strip() for part in entry.partition("="))
        read: dict[str, object] = {}
        put(read, status, Pass())
        if not state or not equals or read["fulfillment_status"] == UNKNOWN:
            msg = f"options.states: {entry!r} is not STATE=STATUS with a fulfillment_status of docs/contract.md"
            raise ConfigError(msg)
        states[folded(state)] = status
    return states


@dataclass(frozen=True, slots=True)
class Photon:
    """The profile with its options."""

    account_id: str = ""
    zone: tzinfo | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    prefix: str = PREFIX

    CONTENT_TYPES = ("application/cloudevents+json",)

    @property
    def PREFIX(self) -> str:  # noqa: N802 - as in profiles that are modules
        """With what its keys begin."""
        return self.prefix

    def map(self, delivery: Delivery, document: dict[str, object], /) -> Mapped | ParkReason:
        """Turn a CloudEvent into an event for each prescription; see `Profile.map`."""
        event_type = document.get("type")
        fact = _FACTS.get(event_type) if type(event_type) is str else None
        if fact is None:
            return ParkReason("unknown_type", field="/type")
        data = document.get("data")
        members = data if isinstance(data, dict) else {}
        reading = Reading(id=delivery.id, time=delivery.received_at)
        # CloudEvents 1.0, "Required Attributes" and "subject": texts; what is none is kept.
        reading.claimed = {
            f"/{name}" for name in ("type", "specversion", "subject") if not isinstance(document.get(name), dict | list)
        }
        drafts = list(self._fills(fact, members)) if fact.by_fill else [self._draft(fact, members, 1, "/data", "/data")]
        for found in drafts:
            if isinstance(found, ParkReason):
                return found
        made = [draft for draft in drafts if isinstance(draft, Draft)]
        if not made:
            return ParkReason("unusable", "no_key", "/data/fills/*/prescription/id")
        if not self._envelope(document, members, reading):
            return ParkReason("unusable", "missing_field", "/source", made[0].key)
        if fact.stated:
            self._state(members, made)
        return compose(delivery, document, made, reading, key=made[0].key)

    def _envelope(self, document: Mapping[str, object], members: Mapping[str, object], reading: Reading) -> bool:
        """Read what the envelope says of all events; False if it names no account and none is configured."""
        event_id = text_of_id(document.get("id"))
        if event_id is not None and _ID.fullmatch(event_id):
            reading.id = event_id
            reading.claimed.add("/id")
        elif document.get("id") is not None:
            reading.flags.add("field_unfit")
        reading.read_time(document.get("time"), "/time", self.zone)
        correlation = text_of_id(members.get("id"))
        if correlation:
            reading.correlation_id = correlation
            reading.claimed.add("/data/id")
        source = document.get("source")
        if type(source) is str and source.strip():
            reading.account_id = self.prefix + source.removeprefix(_OF_ORGANIZATION)
            reading.claimed.add("/source")
            return True
        if source is not None:
            reading.flags.add("field_unfit")
        reading.account_id = self.account_id
        return bool(self.account_id)

    def _state(self, members: Mapping[str, object], drafts: list[Draft]) -> None:
        """Say the state of the order's fulfilment in each of its events."""
        fulfillment = members.get("fulfillment")
        inner = fulfillment.get("state") if isinstance(fulfillment, dict) else None
        pointer = "/data/fulfillment/state" if is_given(inner) or not is_given(members.get("state")) else "/data/state"
        state = inner if pointer == "/data/fulfillment/state" else members.get("state")
        word = self.states.get(folded(state), state) if type(state) is str else state
        for draft in drafts:
            draft.said["fulfillment_status"] = Said(word, pointer, pointer)
            draft.said["raw_status"] = Said(state, pointer, pointer)

    def _fills(self, fact: Fact, members: Mapping[str, object]) -> Iterator[Draft | ParkReason]:
        fills = members.get("fills")
        for index, fill in enumerate(fills if isinstance(fills, list) else ()):
            prescription = fill.get("prescription") if isinstance(fill, dict) else None
            if not isinstance(fill, dict) or not isinstance(prescription, dict):
                continue
            pointer, path = f"/data/fills/{index}", "/data/fills/*"
            draft = self._draft(fact, prescription, index + 1, f"{pointer}/prescription", f"{path}/prescription")
            if isinstance(draft, Draft):
                if fact.type == "fulfillment.status_changed":
                    draft.said["queue_id"] = Said(fill.get("id"), f"{path}/id", f"{pointer}/id")
                if fact.request:
                    draft.said[fact.request] = Said(members.get("id"), "/data/id", "/data/id")
            yield draft

    def _draft(
        self, fact: Fact, prescription: Mapping[str, object], number: int, pointer: str, path: str
    ) -> Draft | ParkReason:
        """Begin the event of one prescription, or say why it has no key."""
        item = prescription.get("id")
        if not is_given(item):
            return ParkReason("unusable", "no_key", f"{path}/id")
        key = key_of(self.prefix, item)
        if key is None:
            return ParkReason("unusable", "bad_key", f"{path}/id")
        draft = Draft(fact.type, number, key, constants=fact.constants)
        draft.said["prescription_id"] = Said(key, f"{path}/id", f"{pointer}/id")
        draft.said["prescriber_order_number"] = Said(
            prescription.get("externalId"), f"{path}/externalId", f"{pointer}/externalId"
        )
        return draft
