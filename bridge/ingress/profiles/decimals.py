"""Fit a number of any length into a fixed-point field, exactly or half-even, in linear time."""

from __future__ import annotations

from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_HALF_EVEN, ROUND_UP, Context, Decimal

from bridge.contract.fields import Digits

# Wide enough to hold any lexeme as it is, and silent where even that ends: an exponent of a thousand digits becomes
# infinite, or by rounding up the smallest number there is, so that it never passes for zero. Width that no digit fills
# costs nothing.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, rounding=ROUND_UP, traps=[])


def exact(lexeme: str) -> Decimal:
    """Read a number's text without rounding.

    Args:
        lexeme: Digits with an optional sign, point and exponent.
    """
    return _EXACT.create_decimal(lexeme)


class FixedPoint:
    """A fixed-point field, ready to fit numbers into it."""

    __slots__ = ("_context", "_quantum")

    def __init__(self, digits: Digits) -> None:
        """Prepare the context once: making one costs more than using it."""
        self._context = Context(prec=digits.precision, rounding=ROUND_HALF_EVEN, traps=[])
        self._quantum = Decimal(1).scaleb(-digits.scale)

    def fit(self, number: Decimal) -> Decimal | None:
        """Give `number` exactly the field's digits after the point, or None if it has too many before it."""
        fitted = number.quantize(self._quantum, context=self._context)
        return None if fitted.is_nan() else fitted
