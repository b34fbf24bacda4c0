"""The key rule of native DRx: the record key of each event type, within which order is kept.

Source: docs/contract.md §4, "Key".
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from bridge.contract.events import OTHER_REPORTED
from bridge.mapping.readers import Pass, UnusableFault, text_of_id

# Returns the key of a body; empty, with the fault noted, if there is none.
KeyRule = Callable[[Mapping[str, object], Pass], str]

KEY_MAX = 128
KEY_PATTERN = f"[A-Za-z0-9._:-]{{1,{KEY_MAX}}}"
_KEY = re.compile(KEY_PATTERN)
# Key prefixes that DRx prescription ids must not have, or their keys could collide: of requests without a prescription,
# DigitalRX, DoseSpot and Photon; sources with profile `mapped` configure their own.
OUR_PREFIXES = ("req:", "q:", "ds:", "ph:")


def prescription_key(document: Mapping[str, object], run: Pass) -> str:
    """Return the prescription id."""
    return _prescription(_member(document, "data", "prescription_id"), run)


def request_key(document: Mapping[str, object], run: Pass) -> str:
    """Return the prescription id, or the request id if the request matches no prescription."""
    prescription = _member(document, "data", "prescription_id")
    if prescription is not None:
        return _prescription(prescription, run)
    request = _member(document, "data", "request_id")
    if request is None:
        run.fault(UnusableFault.NO_KEY, "/data/prescription_id")
        return ""
    # With our prefix, an empty request id would look like a key.
    text = text_of_id(request)
    return _checked(f"req:{text}" if text else None, "/data/request_id", run)


def prescriber_key(document: Mapping[str, object], run: Pass) -> str:
    """Return the prescriber id."""
    return _present(_member(document, "data", "prescriber", "id"), "/data/prescriber/id", run)


def account_key(document: Mapping[str, object], run: Pass) -> str:
    """Return the account id."""
    return _present(document.get("account_id"), "/account_id", run)


def reported_key(document: Mapping[str, object], run: Pass) -> str:
    """Return the prescription id, or the account id if that cannot be a key."""
    return readable_prescription(document, run.prefixes) or account_key(document, run)


# The types whose key is not simply the prescription id.
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
    """Return the prescription id if it is valid, even if other fields are not; it is the parked record's key."""
    return _prescription(_member(document, "data", "prescription_id"), Pass(prefixes)) or None


def _member(document: Mapping[str, object], *names: str) -> object:
    """Return the member at a path; None if absent."""
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
