"""Decide whether an event is sent, to which path and with which body: the same at every attempt."""

import re
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote, unquote

import orjson

from bridge.contract.native import native_json
from bridge.errors import PermanentError
from bridge.event import Event
from consumers.api import Context
from consumers.conditions import BodyExpression
from consumers.forward.options import SLOT, ForwardOptions
from consumers.options import is_plain

PING = "system.ping"
_PARTS = re.compile(r"[/\\;]")
_DOTS = frozenset({".", ".."})


class EndpointRequest(NamedTuple):
    """The request for an event: `path` is appended to the URL, percent-encoded."""

    path: str
    body: bytes


class RequestMapping:
    """How events become requests to one endpoint."""

    def __init__(self, options: ForwardOptions) -> None:
        self._options = options
        # Literals between the expressions have even indexes.
        self._path = [BodyExpression(part) if at % 2 else part for at, part in enumerate(SLOT.split(options.path))]

    def request(self, event: Event, context: Context) -> EndpointRequest | None:
        """Return the request for an event, or None if it is not sent; refuse an event that cannot be sent."""
        options = self._options
        if (
            (event.type == PING and PING not in options.types)
            or (context.origin == "import" and options.imports == "skip")
            or not options.wants_account(event)
        ):
            return None
        if not is_plain(event.id):
            raise PermanentError("bad_id")
        phi = options.payload == "event"
        whole = native_json(event.value) if phi or options.when is not None else b""
        if options.when is not None and not options.when.holds(whole, event):
            return None
        native = whole if phi else native_json(event.value, phi=False)
        path = "".join(part if isinstance(part, str) else _segment(part, native, event) for part in self._path)
        if options.body is None:
            return EndpointRequest(path, native)
        return EndpointRequest(path, _object(options.body.value(native, event, failed="body_failed")))


def _segment(expression: BodyExpression, native: bytes, event: Event) -> str:
    """Return a value as a path segment; refuse one that a server might read as another path."""
    value = expression.value(native, event, failed="path_failed")
    text = str(value)
    # Some servers decode twice, split at encoded separators, or drop everything after a `;`.
    parts = _PARTS.split(unquote(text))
    if not isinstance(value, str | int | float) or isinstance(value, bool) or not text or not _DOTS.isdisjoint(parts):
        raise PermanentError("path_failed")
    return quote(text, safe="")


def _object(value: object) -> bytes:
    if isinstance(value, dict):
        with suppress(orjson.JSONEncodeError):  # such as a number of more than 64 bits
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    raise PermanentError("body_failed")
