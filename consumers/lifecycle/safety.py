"""Contradictions between the facts of a prescription: safety signals, and harmless anomalies.

Source: docs/contract.md §6, "Contradictions are kept and signalled".
"""

from consumers.lifecycle.facts import Document, Stamp

DISPENSED_AFTER_CANCEL = "dispensed_after_cancel"
SAFETY_KINDS = (DISPENSED_AFTER_CANCEL,)
PROCESSED_AFTER_FINAL_FAILURE = "processed_after_final_failure"
ANOMALY_KINDS = (PROCESSED_AFTER_FINAL_FAILURE,)

# Words of a fill whose medication has left the pharmacy.
HANDED_OUT = frozenset({"dispensed", "partially_dispensed"})


def safety_signals(document: Document) -> dict[str, Stamp]:
    """Return the current signals, each with the stamp of the earliest fact that raises it."""
    approval = document.get("first_approval")
    if approval is None:
        return {}
    late = [stamp for stamp, word in document["fills"].values() if word in HANDED_OUT and stamp > approval]
    return {DISPENSED_AFTER_CANCEL: min(late)} if late else {}


def anomalies(document: Document) -> dict[str, list[str]]:
    """Return the anomalies by kind, each with the ids of its messages."""
    found = [
        identity
        for identity, message in document["messages"].items()
        if "failed_finally" in message and message.get("processed", []) > message["failed_finally"]
    ]
    return {PROCESSED_AFTER_FINAL_FAILURE: sorted(found)} if found else {}
