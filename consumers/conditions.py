"""Evaluate a JMESPath expression on the body of an event; pure."""

from typing import Annotated, Any

import jmespath
import orjson
from jmespath.exceptions import JMESPathError
from pydantic import BeforeValidator, InstanceOf

from bridge.contract.events import OTHER_REPORTED
from bridge.errors import PermanentError
from bridge.event import Event

# Values that are false in JMESPath (specification, "Or Expressions"); zero is true.
_FALSE: tuple[object, ...] = ("", [], {}, None)


class BodyExpression:
    """A JMESPath expression on the native body of an event."""

    def __init__(self, text: str) -> None:
        """Compile the expression; `ValueError`, with a short reason, if it is invalid."""
        try:
            self._compiled = jmespath.compile(text)
        except (JMESPathError, ValueError, RecursionError) as exc:
            raise ValueError(f"is not a JMESPath expression ({type(exc).__name__})") from None

    def value(self, body: bytes, event: Event, *, failed: str = "when_failed") -> Any:
        """Return its value for an event's native body (JSON), to which `reported_type` is added if the event has one.

        If it fails on a body, the event is refused permanently, with the code `failed`.
        """
        try:
            document = orjson.loads(body)
            if event.type == OTHER_REPORTED:
                document["reported_type"] = event.value["reported_type"]
            return self._compiled.search(document)
        except (JMESPathError, ArithmeticError, TypeError, ValueError, RecursionError):
            # The library's message contains values of the event.
            raise PermanentError(failed) from None

    def holds(self, body: bytes, event: Event) -> bool:
        """Return whether its value is true for a body; raises like `value`."""
        found = self.value(body, event)
        return found is not False and found not in _FALSE


def _compiled(text: object) -> object:
    if isinstance(text, str):
        return BodyExpression(text) if text else None
    return text


Condition = Annotated[InstanceOf[BodyExpression] | None, BeforeValidator(_compiled)]
"""An expression in a setting; empty: none."""
