"""Decide whether an event is sent, and what of it: the same bytes at every attempt."""

from __future__ import annotations

from collections.abc import Collection

from bridge.contract.native import native_json
from bridge.errors import ConfigError, PermanentError
from bridge.event import Event
from consumers.api import Context
from consumers.conditions import Condition

PING = "system.ping"


class Mapping:
    """What one endpoint gets."""

    def __init__(
        self,
        *,
        types: Collection[str] = ("*",),
        accounts: Collection[str] | None = None,
        when: str = "",
        phi: bool = True,
        imports: bool = False,
    ) -> None:
        """Compile the filters.

        Args:
            types: As configured; only `system.ping` is looked for here.
            accounts: Account ids whose events are sent; None: all.
            when: JMESPath expression, or empty.
            phi: Send the whole body.
            imports: Send imported records too.

        Raises:
            ConfigError: `when` is no expression.
        """
        self._pings = PING in types
        self._accounts = None if accounts is None else frozenset(accounts)
        self._when = _compiled(when)
        self._phi = phi
        self._imports = imports

    def body(self, event: Event, context: Context) -> bytes | None:
        """Return what is sent of an event, or None if it is not sent.

        Raises:
            PermanentError: The expression has no answer for this event, or its id cannot stand in a header.
        """
        if (
            (event.type == PING and not self._pings)
            or (context.origin == "import" and not self._imports)
            or (self._accounts is not None and event.value["account_id"] not in self._accounts)
        ):
            return None
        if not is_header_text(event.id):
            raise PermanentError("bad_id")
        whole = native_json(event.value) if self._phi or self._when is not None else b""
        if self._when is not None and not self._when.holds(whole):
            return None
        return whole if self._phi else native_json(event.value, phi=False)


def is_header_text(text: str) -> bool:
    """Say whether `text` can stand in a header as it is: printable ASCII without spaces, at least one character."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _compiled(expression: str) -> Condition | None:
    if not expression:
        return None
    try:
        return Condition(expression)
    except ValueError as exc:
        msg = f"forward.when: {exc}"
        raise ConfigError(msg) from None
