"""Evaluate a JMESPath expression on the body of an event; pure."""

from __future__ import annotations

from typing import Any

import jmespath
import orjson
from jmespath.exceptions import JMESPathError

from bridge.contract.events import OTHER_REPORTED
from bridge.errors import PermanentError
from bridge.event import Event

# What JMESPath calls false ("Or Expressions" of its specification); zero is true.
_FALSE: tuple[object, ...] = ("", [], {}, None)


class Expression:
    """One expression."""

    def __init__(self, text: str, *, failed: str = "when_failed") -> None:
        """Compile it; `failed` is the code of a body for which it has no result.

        Raises:
            ValueError: It is none; the text is a short reason.
        """
        try:
            self._compiled = jmespath.compile(text)
        except (JMESPathError, ValueError, RecursionError) as exc:
            msg = f"is no JMESPath expression ({type(exc).__name__})"
            raise ValueError(msg) from None
        self._failed = failed

    def value(self, body: bytes, event: Event) -> Any:
        """Return what it is of an event's native body, JSON, to which `reported_type` is added if the event has one.

        Raises:
            PermanentError: It has no result for this body.
        """
        try:
            document = orjson.loads(body)
            if event.type == OTHER_REPORTED:
                document["reported_type"] = event.value["reported_type"]
            return self._compiled.search(document)
        except (JMESPathError, ArithmeticError, TypeError, ValueError, RecursionError):
            # The message of a library quotes values of the event.
            raise PermanentError(self._failed) from None

    def holds(self, body: bytes, event: Event) -> bool:
        """Whether it is true of a body.

        Raises:
            PermanentError: As `value`.
        """
        found = self.value(body, event)
        return found is not False and found not in _FALSE
