"""What the events of `story.mail_order` mean: to people, and for the state of the prescription.

Written from docs/contract.md §6 by hand, apart from the code that merges, so that it can disagree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# The columns of `read_model.prescription` that say how a prescription stands: six machines, and the word to display.
MACHINES = ("transmission", "order_status", "open_requests", "dispense", "fulfillment", "shipment")
DISPLAY = "display"

State = Mapping[str, str]


class Act(NamedTuple):
    """One event of the story: what it tells, and the columns that it changes."""

    told: str
    moves: State


ACTS = (
    Act(
        "A draft waits in the prescriber's queue.",
        {**dict.fromkeys(MACHINES, "none"), "transmission": "draft", "order_status": "active", DISPLAY: "draft"},
    ),
    Act("Signed; the order has left for the pharmacy.", {"transmission": "sent", DISPLAY: "sent"}),
    Act("The pharmacy's system has confirmed it.", {"transmission": "processed", DISPLAY: "processed"}),
    Act("It stands in the mail-order pharmacy's queue.", {"fulfillment": "received", DISPLAY: "received"}),
    Act("Counted, labelled, billed and packed.", {"fulfillment": "packed", DISPLAY: "packed"}),
    Act("The pharmacist gives it out.", {"dispense": "dispensed", DISPLAY: "dispensed"}),
    # Until the parcel is delivered, that it was given out says more than where it is.
    Act("The carrier knows of a parcel.", {"shipment": "label_created"}),
    Act("The parcel is on its way.", {"shipment": "in_transit"}),
    Act("The parcel is at the patient's door.", {"shipment": "delivered", DISPLAY: "delivered"}),
)


def state_after(acts: int) -> State:
    """Return all columns after the first `acts` events."""
    return {name: word for act in ACTS[:acts] for name, word in act.moves.items()}
