"""Every deliberate failure; each class has a stable code, and whether the same call may work later."""

from typing import ClassVar


class BridgeError(Exception):
    """Base of the tree; anything outside it is a bug."""

    code: str = "error"  # stable word for logs, HTTP bodies and headers; never a value of a delivery
    retriable: ClassVar[bool] = False  # true when the same call may work later with nothing changed


class ConfigError(BridgeError):
    """The operator must change something; the message is one line with what to do. Exit 2."""

    code = "config"


class CodedError(BridgeError):
    """A failure with a constant code of its own, and perhaps a line for an operator."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.code = code


class DeliveryRefusedError(CodedError):
    """Refused before it was proved to be its source's; the answer is 4xx and carries only the code."""

    def __init__(self, code: str, *, reason: str = "", wait_s: float = 0.0) -> None:
        """Keep the `code` of the answer, the `reason` for metrics and logs, and after how long to come back."""
        super().__init__(code)
        self.reason = reason
        self.wait_s = wait_s


class NotDurableError(CodedError):
    """Nothing could make the delivery durable in time; the answer is 503 and the sender keeps it."""

    retriable = True


class RecordRefusedError(NotDurableError):
    """Kafka refused a batch for what one of its records is; nothing of the batch was written."""

    def __init__(self, code: str, *, for_good: bool = True) -> None:
        """Keep the constant `code`, and whether time and clocks alone change nothing."""
        super().__init__(code)
        self.for_good = for_good


class TooLargeError(BridgeError):
    """An event becomes a larger record than its topic takes; the delivery is parked as it came, which always fits."""

    code = "too_large"


class DecodeError(CodedError):
    """Bytes are no record of ours: truncated, trailing bytes, or an unknown schema id."""


class UnknownRecordError(DecodeError):
    """A valid record of a type that this release does not know; `Consumer.unknown` decides what happens to it."""

    def __init__(self) -> None:
        super().__init__("unknown_record")


class PermanentError(CodedError):
    """Raised by a handler: the event can never be applied. Its key is parked at once."""

    def __init__(self, code: str) -> None:
        """Keep a constant `code`; never a value of the event."""
        super().__init__(_word(code))


class TransientError(CodedError):
    """Raised by a handler: a retry may succeed. Repeated failures park the key, but never during an outage."""

    retriable = True
    blameless = False  # true when neither the event nor the sink is at fault: uses up no attempts

    def __init__(self, code: str, *, systemic: bool = False) -> None:
        """Keep a constant `code`; never a value of the event."""
        super().__init__(_word(code))
        # True when every event would fail (the sink is down, or refuses us): uses up no attempts.
        self.systemic = systemic


def _word(code: str) -> str:
    """Return the code of a team's error, if a log and a table can hold it; anything else is a bug where it is raised.

    `AttributeError`: it is no text. `ValueError`: it has characters that are not printable.
    """
    if not code.isprintable():
        raise ValueError("a code is a constant word")
    return code
