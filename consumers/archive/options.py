"""The settings of `archive`: `CONSUMER_ARCHIVE__<KEY>`, described in its `README.md`."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from consumers.options import TOPICS, AllowHttp, Options, TablesSchema, Topics, schema_group, variable

NAME = "archive"
# Maximum records of a batch: a decoded event takes 14 KiB, and three batches are in memory at a time.
BATCH_RECORDS = 5_000
_BATCH_MAX = 20_000
_WAIT_S = 120.0
_WAIT_MAX_S = 86_400.0
# Maximum seconds until a batch is settled, since five minutes without settling mean a stuck partition. Longer waits
# happen in committed files.
_BATCH_WAIT_MAX_S = 120.0
S3 = "s3://"
# A bucket, and keys without characters that clients escape.
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._=-]+)*")
_ENDPOINT = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def _root(root: str) -> str:
    if _BUCKET.fullmatch(root) is None and not Path(root).is_absolute():
        raise ValueError("an absolute path, or s3://bucket/prefix, without credentials")
    return root


def _endpoint(url: str) -> str:
    if url and _ENDPOINT.fullmatch(url) is None:
        raise ValueError("https://host:port, and nothing else")
    return url


class ArchiveOptions(Options):
    """The settings of `archive`."""

    root: Annotated[str, AfterValidator(_root)]
    endpoint: Annotated[str, AfterValidator(_endpoint)] = ""
    allow_http: AllowHttp = False
    tables_schema: TablesSchema = Field(NAME, alias="schema")
    topics: Topics = TOPICS
    raw: bool = False
    batch_records: int = Field(BATCH_RECORDS, ge=1, le=_BATCH_MAX)
    wait_s: float = Field(_WAIT_S, ge=0.05, le=_WAIT_MAX_S)
    columns: Literal["all", "no_d", "hashed"] = "all"
    hash_key_file: Path | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.columns == "hashed") != (self.hash_key_file is not None):
            raise ValueError("set hash_key_file if columns=hashed, and only then")
        if self.endpoint and not self.in_bucket:
            raise ValueError("endpoint applies only to a root of s3://…")
        if self.endpoint.startswith("http://") and not self.allow_http:
            raise ValueError(
                "endpoint is plain HTTP, and health information is written to it: name an https:// URL,"
                f" or allow it by {variable(NAME, 'allow_http')}=true"
            )
        if self.raw and self.columns != "all":
            raise ValueError("raw bodies are class D: raw=true needs columns=all")
        if UNRECOGNIZED_TOPIC in self.topics:
            raise ValueError(f"topics: {UNRECOGNIZED_TOPIC} is read with raw=true")
        return self

    @property
    def in_bucket(self) -> bool:
        """Whether the lake is in a bucket instead of a directory."""
        return self.root.startswith(S3)

    @property
    def batch_wait_s(self) -> float:
        """Seconds that a batch waits to be full."""
        return min(self.wait_s, _BATCH_WAIT_MAX_S)

    @property
    def gather_s(self) -> float:
        """Seconds that the file of a partial batch waits to be merged with others; 0: not at all."""
        return self.wait_s - self.batch_wait_s

    @property
    def all_topics(self) -> tuple[str, ...]:
        """All topics that it reads."""
        return (*self.topics, UNRECOGNIZED_TOPIC) if self.raw else self.topics

    @property
    def group(self) -> str:
        """Group id."""
        return schema_group(NAME, self.tables_schema)
