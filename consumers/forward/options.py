"""The settings of `forward`: `CONSUMER_FORWARD__<KEY>`, described in its `README.md`."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from consumers.conditions import BodyExpression, Condition
from consumers.options import TOPICS, HttpOptions, Imports, Topics, WordList, is_plain

NAME = "forward"
# Lanes mostly wait for responses: 64 lanes send 2,500 events/s to a receiver that takes 25 ms.
LANES_MAX = 256
# An expression in a path; it cannot contain braces.
SLOT = re.compile(r"\{([^{}]*)\}")


def _path(path: str) -> str:
    if path and (path[0] != "/" or not is_plain(SLOT.sub("", path))):
        raise ValueError("begins with /, percent-encoded outside of {expression}")
    for expression in SLOT.findall(path):
        BodyExpression(expression)
    return path


class ForwardOptions(HttpOptions):
    """The settings of `forward`."""

    url: Annotated[str, Field(min_length=1, max_length=2048)]
    secrets_dir: Path
    types: WordList = ("*",)
    when: Condition = None
    body: Condition = None
    path: Annotated[str, Field(max_length=2048), AfterValidator(_path)] = ""
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    payload: Literal["event", "ids"] = "event"
    imports: Imports = "skip"
    topics: Topics = TOPICS
    lanes: int = Field(8, ge=1, le=LANES_MAX)
    headers_file: Path | None = None

    @model_validator(mode="after")
    def _path_fits(self) -> Self:
        if self.path and not {"?", "#"}.isdisjoint(self.url):
            raise ValueError("path cannot follow a URL with a query: put the query into the path")
        return self
