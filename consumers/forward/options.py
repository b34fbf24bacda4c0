"""The settings of `forward`: `CONSUMER_FORWARD__<KEY>`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from consumers.options import TIMEOUT_MAX_S, TOPICS, ServerOptions, Words

NAME = "forward"
# A lane waits for its answer most of the time: 64 lanes carry 2,500 events/s to a receiver that takes 25 ms.
LANES_MAX = 256


class ForwardOptions(ServerOptions):
    """All that can be set.

    Attributes:
        url: Where each event is sent.
        allow_http: Take an `http://` URL; what is sent is health information.
        secrets_dir: Slot files of the secrets that sign.
        types: Patterns of event types that are sent; `system.ping` only if it is named.
        when: JMESPath expression on the body; an event for which it is false or empty is not sent.
        body: JMESPath expression of what is sent, an object; the whole native body unless given.
        path: What follows the URL, such as `/orders/{data.prescription_id}`.
        method: Of each request.
        payload: `event` is the whole body, `ids` only what identifies nobody, and the record's key.
        imports: Whether records that were imported are sent.
        topics: Topics that it reads.
        lanes: Requests at one time; those of one key follow one another.
        timeout_s: For one request as a whole.
        headers_file: Headers that go with each request, `Name: value` on each line.
    """

    url: Annotated[str, Field(min_length=1, max_length=2048)]
    allow_http: bool = False
    secrets_dir: Path
    types: Words = ("*",)
    when: Annotated[str, Field(max_length=4096)] = ""
    body: Annotated[str, Field(max_length=65536)] = ""
    path: Annotated[str, Field(max_length=2048)] = ""
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    payload: Literal["event", "ids"] = "event"
    imports: Literal["skip", "send"] = "skip"
    topics: Words = TOPICS
    lanes: int = Field(8, ge=1, le=LANES_MAX)
    timeout_s: float = Field(10.0, ge=0.1, le=TIMEOUT_MAX_S)
    headers_file: Path | None = None

    @model_validator(mode="after")
    def _path_fits(self) -> Self:
        if self.path and not {"?", "#"}.isdisjoint(self.url):
            msg = "path cannot follow a URL with a query: put the query into the path"
            raise ValueError(msg)
        return self
