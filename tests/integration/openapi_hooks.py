"""What schemathesis is told about us, in its own process: whose path it calls, and how a delivery is signed."""

from __future__ import annotations

import os
import re
import time
from itertools import count

import schemathesis
from requests import PreparedRequest
from requests.auth import AuthBase
from schemathesis.core.parameters import ParameterLocation

from bridge.ingress.schemes.standard_webhooks import sign
from tests.builders import KEY

SOURCE_VARIABLE = "DRX_OPENAPI_SOURCE"
HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


NUMBERS = count(1)


class Signature(AuthBase):
    """Signs the exact bytes that are sent; a header that was left out or spoilt on purpose stays so."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if all(name in request.headers for name in HEADERS):
            self._sign(request)
        return request

    def _sign(self, request: PreparedRequest) -> None:
        headers, body = request.headers, request.body or b""
        assert isinstance(body, bytes | str)
        sent_at = int(time.time())
        webhook_id, timestamp = (as_text(headers[name]) for name in HEADERS[:2])
        if re.fullmatch(r"[0-9]{1,12}", timestamp):
            headers["webhook-timestamp"] = str(sent_at)
        signed = body.encode() if isinstance(body, str) else body
        headers["webhook-signature"] = sign(webhook_id, sent_at, signed, key=KEY)


def as_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


schemathesis.auth.set_from_requests(Signature())


def before_call(_context: schemathesis.HookContext, case: schemathesis.Case, **_: object) -> None:
    """Name the source that there is, and have all but the part that a case is about be as it should."""
    if "source" not in case.path_parameters:
        return
    case.path_parameters["source"] = os.environ[SOURCE_VARIABLE]
    if isinstance(case.body, dict) and case.body.get("environment") == "production":
        case.body["environment"] = "sandbox"  # that of the source
    if not is_about_headers(case):
        # An id of its own: another body under one that was used would be parked as a conflict.
        case.headers.update(dict(zip(HEADERS, (f"evt_{next(NUMBERS)}", "1", "v1,"), strict=True)))


schemathesis.hook(before_call)


def is_about_headers(case: schemathesis.Case) -> bool:
    if case.meta is None:
        return False
    # A case of the phase `coverage` names what is wrong, and lets the rest be wrong as well.
    changed = getattr(case.meta.phase.data, "parameter_location", None)
    component = case.meta.components.get(ParameterLocation.HEADER)
    is_wrong = component is not None and component.mode.is_negative
    return is_wrong and changed in {None, ParameterLocation.HEADER}
