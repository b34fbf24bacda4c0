"""Contradictions between facts of a prescription: safety signals, and harmless anomalies.

Source: docs/contract.md §6, "Contradictions are kept and signalled".
"""

from consumers.lifecycle.facts import Document

DISPENSED_AFTER_CANCEL = "dispensed_after_cancel"
SAFETY_KINDS = (DISPENSED_AFTER_CANCEL,)
PROCESSED_AFTER_FINAL_FAILURE = "processed_after_final_failure"
ANOMALY_KINDS = (PROCESSED_AFTER_FINAL_FAILURE,)

# Statuses of a fill whose medication has left the pharmacy.
HANDED_OUT = frozenset({"dispensed", "partially_dispensed"})


def safety_signals(document: Document) -> list[str]:
    """Return the kinds of the current signals."""
    approval = document.get("first_approval")
    fills = () if approval is None else document["fills"].values()
    is_late = any(word in HANDED_OUT and stamp > approval for stamp, word in fills)
    return [DISPENSED_AFTER_CANCEL] if is_late else []


def anomalies(document: Document) -> dict[str, list[str]]:
    """Return the anomalies by kind, each with the ids of its messages."""
    found = [
        identity
        for identity, message in document["messages"].items()
        if "failed_finally" in message and message.get("processed", []) > message["failed_finally"]
    ]
    return {PROCESSED_AFTER_FINAL_FAILURE: sorted(found)} if found else {}
