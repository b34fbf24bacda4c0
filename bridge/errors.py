"""Errors raised on purpose; each class has a stable code and states whether a retry may succeed."""

from typing import ClassVar


class BridgeError(Exception):
    """Base class; any other exception is a bug."""

    code: str = "error"  # stable identifier for logs, HTTP bodies and headers; never a value of a delivery
    retriable: ClassVar[bool] = False  # true if the same call may succeed later without any change


class ConfigError(BridgeError):
    """The operator must change something; the message is one line of advice. Exit code 2."""

    code = "config"


class CodedError(BridgeError):
    """A failure with its own constant code, and optionally a line for the operator."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.code = code


class DeliveryRefusedError(CodedError):
    """Refused before its origin was verified; the response is 4xx with only the code."""

    def __init__(self, code: str, *, reason: str = "", wait_s: float = 0.0) -> None:
        """Keep the `code` of the response, the `reason` for metrics and logs, and the seconds until a retry."""
        super().__init__(code)
        self.reason = reason
        self.wait_s = wait_s


class NotDurableError(CodedError):
    """The delivery could not be made durable in time; the response is 503 and the sender keeps it."""

    retriable = True
    size: int | None = None  # bytes of the batch that was refused, if it was at fault


class RecordRefusedError(NotDurableError):
    """Kafka refused a batch because of one of its records; nothing of the batch was written."""

    def __init__(self, code: str, *, for_good: bool = True, size: int | None = None) -> None:
        """Keep the constant `code`; `for_good` if Kafka will refuse the record at any time, `size` of the batch."""
        super().__init__(code)
        self.for_good = for_good
        self.size = size


class TooLargeError(BridgeError):
    """The record of an event is too large for its topic; the delivery is parked as received, which always fits."""

    code = "too_large"


class DecodeError(CodedError):
    """The bytes cannot be decoded: truncated, trailing bytes, or an unknown schema id."""


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
    blameless = False  # true if neither the event nor the sink is at fault: does not count as an attempt

    def __init__(self, code: str, *, systemic: bool = False) -> None:
        """Keep a constant `code`; never a value of the event."""
        super().__init__(_word(code))
        # True if every event would fail (the sink is down, or rejects our credentials): does not count as an attempt.
        self.systemic = systemic


def _word(code: str) -> str:
    """Return the code of a handler's error if logs and tables can hold it; otherwise the handler has a bug.

    Raises `AttributeError` if it is not a string, `ValueError` if it has characters that are not printable.
    """
    if not code.isprintable():
        raise ValueError("a code must be constant and printable")
    return code
