"""Decide by a JMESPath expression on the body of an event; pure."""

from __future__ import annotations

import jmespath
import orjson
from jmespath.exceptions import JMESPathError

from bridge.errors import PermanentError

# What JMESPath calls false ("Or Expressions" of its specification); zero is true.
_FALSE: tuple[object, ...] = ("", [], {}, None)


class Condition:
    """One expression."""

    def __init__(self, expression: str) -> None:
        """Compile it.

        Raises:
            ValueError: It is none; the text says why in a word.
        """
        try:
            self._compiled = jmespath.compile(expression)
        except (JMESPathError, ValueError, RecursionError) as exc:
            msg = f"is no JMESPath expression ({type(exc).__name__})"
            raise ValueError(msg) from None

    def holds(self, body: bytes) -> bool:
        """Say whether it is true of a body, JSON.

        Raises:
            PermanentError: It has no result for this body.
        """
        try:
            found = self._compiled.search(orjson.loads(body))
        except (JMESPathError, ArithmeticError, TypeError, ValueError, RecursionError):
            # The message of a library quotes values of the event.
            raise PermanentError("when_failed") from None
        return found is not False and found not in _FALSE
