"""All that the harness knows of a bridge: where it takes deliveries, how they are signed, what its log holds."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

# Webhook id, unix time and body to the headers of a delivery.
Sign = Callable[[str, int, bytes], Mapping[str, str]]


class Logged(NamedTuple):
    """One record of the log, as far as promises go.

    Attributes:
        place: Topic and partition.
        body_sha256: Lower-case hex, of the body as it was sent.
        parked: True in the topic of deliveries that are no events.
        clear: Everything of it that is not sealed off as its value is: here no health information may stand.
    """

    place: tuple[str, int]
    offset: int
    key: str
    event_id: str
    body_sha256: str
    parked: bool
    clear: bytes


@dataclass(frozen=True, slots=True)
class Subject:
    """One bridge.

    Attributes:
        url: Where deliveries are posted.
        sign: As the sender does who shares a secret with it.
        forge: As somebody does who knows everything but the secret.
        log: Every record that it has written, each partition in order.
    """

    url: str
    sign: Sign
    forge: Sign
    log: Callable[[], Awaitable[list[Logged]]]
