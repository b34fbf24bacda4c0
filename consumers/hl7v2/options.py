"""The settings of `hl7v2`: `CONSUMER_HL7V2__<KEY>`, described in its `README.md`."""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from bridge.runtime.hosts import is_host
from consumers.options import ORDER_TOPICS, TIMEOUT_MAX_S, AllowPlaintext, Imports, ServerOptions, Topics

NAME = "hl7v2"
CONNECTIONS_MAX = 64
_PORT_MAX = 65_535
# First component of an HD, the type of MSH-3 to MSH-6 and of assigning authorities.
_NAME_MAX = 20


def _plain(text: str) -> str:
    if not text.isprintable() or set(text) & set("|^~\\&"):
        raise ValueError("printable characters, and none of | ^ ~ \\ &")
    return text


def _host(name: str) -> str:
    if not is_host(name):
        raise ValueError("a host name or an address")
    return name


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError, ValueError):
        raise ValueError("a time zone such as UTC or America/Chicago") from None
    return name


PartName = Annotated[str, Field(max_length=_NAME_MAX), AfterValidator(_plain)]


class Hl7Options(ServerOptions):
    """The settings of `hl7v2`."""

    host: Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_host)]
    port: int = Field(ge=1, le=_PORT_MAX)
    allow_plaintext: AllowPlaintext = False
    connections: int = Field(1, ge=1, le=CONNECTIONS_MAX)
    ack_timeout_s: float = Field(20.0, ge=0.1, le=TIMEOUT_MAX_S)
    ack_mode: Literal["original", "enhanced"] = "original"
    control_id: Literal["short", "full"] = "short"
    sending_app: PartName = "DRX"
    sending_facility: PartName = ""
    receiving_app: PartName = ""
    receiving_facility: PartName = ""
    orders: Literal["omp", "orm"] = "omp"
    drafts: bool = False
    shipments: bool = False
    no_patient: Literal["hold", "send", "park"] = "hold"
    assigner: PartName = ""
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    imports: Imports = "skip"
    topics: Topics = ORDER_TOPICS
