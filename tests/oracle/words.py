"""The words of catalogue.json that move a machine."""

# A word outside its list is UNKNOWN, however the event spells it.
FILL_WORDS = ("dispensed", "partially_dispensed", "not_dispensed", "transferred")
LINE_WORDS = (
    *("received", "billing", "in_progress", "packed", "approved", "on_hold", "rejected"),
    *("handed_to_carrier", "delivered"),
)
PARCEL_WORDS = ("label_created", "picked_up", "in_transit", "out_for_delivery", "delivered", "exception", "returned")
RENEWAL_DECISIONS = ("approved", "approved_with_changes", "denied", "denied_new_rx_to_follow", "replace", "pending")
CHANGE_DECISIONS = ("approved", "approved_with_changes", "denied", "pending", "validated")
CLOSE_REASONS = ("expired", "removed", "superseded", "answered_elsewhere")
CANCEL_DECISIONS = ("approved", "denied", "no_response")
