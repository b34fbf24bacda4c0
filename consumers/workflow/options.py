"""The settings of `workflow`: `CONSUMER_WORKFLOW__<KEY>`, described in its `README.md`."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from bridge.errors import ConfigError
from consumers.options import TOPICS, AllowPlaintext, EndpointOptions, Instant, SchemaName, Topics, split_address
from consumers.workflow.rules import Rules, parse_rules

NAME = "workflow"
SHIPPED_RULES = files("consumers.workflow") / "rules.toml"
# The alert `WorkflowTimersLate` waits a quarter of an hour.
_TIMERS_MAX_S = 300.0


def _server(text: str) -> str:
    found = split_address(f"tcp://{text}", ("tcp",))
    if found is None or found[0].path or "," in text or "@" in text or not found[0].hostname or ":" not in found[1]:
        raise ValueError("host:port")
    return text


class WorkflowOptions(EndpointOptions):
    """The settings of `workflow`."""

    address: Annotated[str, AfterValidator(_server)]
    namespace: Annotated[str, Field(min_length=1, max_length=1000)] = "default"
    allow_plaintext: AllowPlaintext = False
    tls_dir: Path | None = None
    api_key_file: Path | None = None
    rules: Path | None = None
    payload: Literal["ids", "full"] = "ids"
    codec_key_dir: Path | None = None
    timers: Literal["on", "off"] = "on"
    timers_every_s: float = Field(60.0, ge=1, le=_TIMERS_MAX_S)
    timers_from: Instant | None = None
    read_model_schema: SchemaName = "read_model"
    imports: Literal["skip", "apply"] = "skip"
    topics: Topics = TOPICS

    @model_validator(mode="after")
    def _sealed(self) -> "WorkflowOptions":
        if self.payload == "full" and self.codec_key_dir is None:
            msg = "payload=full keeps health information in Temporal's histories: set codec_key_dir to encrypt it"
            raise ValueError(msg)
        return self

    def read_rules(self) -> Rules:
        """Read the configured rules, or the bundled ones."""
        if self.rules is None:
            return parse_rules(SHIPPED_RULES.read_text(encoding="utf-8"), file="rules.toml")
        try:
            text = self.rules.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"workflow.rules: cannot read {self.rules}, or it is not UTF-8") from None
        return parse_rules(text, file=str(self.rules))
