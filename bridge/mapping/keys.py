"""The key rule of native DRx: what an event's order belongs to.

Source: docs/contract.md §4, "Key rule".
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from bridge.contract.events import OTHER_REPORTED
from bridge.mapping.readers import Pass, UnusableFault, text_of_id

# Finds the key in the whole body; empty, with the fault noted, if there is none.
KeyRule = Callable[[Mapping[str, object], Pass], str]

KEY_MAX = 128
KEY_PATTERN = f"[A-Za-z0-9._:-]{{1,{KEY_MAX}}}"
_KEY = re.compile(KEY_PATTERN)
# Prefixes of keys that are no prescription ids of DRx: a prescription that bore one could share a key with something
# else. Requests without a prescription, DigitalRX, DoseSpot, Photon; sources of profile `mapped` configure theirs.
OUR_PREFIXES = ("req:", "q:", "ds:", "ph:")


def prescription_key(document: Mapping[str, object], run: Pass) -> str:
    """Take the prescription id."""
    return _prescription(_member(document, "data", "prescription_id"), run)


def request_key(document: Mapping[str, object], run: Pass) -> str:
    """Take the prescription id, or the id of a request that no prescription could be matched to."""
    prescription = _member(document, "data", "prescription_id")
    if prescription is not None:
        return _prescription(prescription, run)
    request = _member(document, "data", "request_id")
    if request is None:
        run.fault(UnusableFault.NO_KEY, "/data/prescription_id")
        return ""
    # An empty request id must not pass for a key on the strength of our prefix.
    text = text_of_id(request)
    return _checked(f"req:{text}" if text else None, "/data/request_id", run)


def prescriber_key(document: Mapping[str, object], run: Pass) -> str:
    """Take the prescriber id."""
    return _present(_member(document, "data", "prescriber", "id"), "/data/prescriber/id", run)


def account_key(document: Mapping[str, object], run: Pass) -> str:
    """Take the account id."""
    return _present(document.get("account_id"), "/account_id", run)


def reported_key(document: Mapping[str, object], run: Pass) -> str:
    """Take the prescription id, or the account id if there is none that can be a key."""
    return readable_prescription(document, run.prefixes) or account_key(document, run)


# The types that do not simply take the prescription id.
KEY_RULES: Mapping[str, KeyRule] = MappingProxyType(
    {
        "renewal.requested": request_key,
        "change.requested": request_key,
        OTHER_REPORTED: reported_key,
        "prescriber.enrollment_changed": prescriber_key,
        "system.ping": account_key,
    }
)


def readable_prescription(document: Mapping[str, object], prefixes: tuple[str, ...] = ()) -> str | None:
    """Return the prescription id if it is there and valid, whatever else is wrong; it keys the parked record."""
    return _prescription(_member(document, "data", "prescription_id"), Pass(prefixes)) or None


def _member(document: Mapping[str, object], *names: str) -> object:
    """Return the member at a path; None if it is not there."""
    found: object = document
    for name in names:
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _prescription(item: object, run: Pass) -> str:
    key = _present(item, "/data/prescription_id", run)
    if key.startswith(OUR_PREFIXES + run.prefixes):
        run.fault(UnusableFault.BAD_KEY, "/data/prescription_id")
        return ""
    return key


def _present(item: object, path: str, run: Pass) -> str:
    if item is None:
        run.fault(UnusableFault.NO_KEY, path)
        return ""
    return _checked(text_of_id(item), path, run)


def _checked(text: str | None, path: str, run: Pass) -> str:
    if text is None or _KEY.fullmatch(text) is None:
        run.fault(UnusableFault.BAD_KEY, path)
        return ""
    return text
