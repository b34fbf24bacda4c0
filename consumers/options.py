"""A consumer's own settings, `CONSUMER_<NAME>__<KEY>`: base models, and one-line errors for invalid values."""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from bridge.errors import ConfigError, TransientError
from bridge.event import Event
from bridge.kafka.routing import ACCOUNTS_TOPIC, PRESCRIPTIONS_TOPIC
from consumers.postgres.text import LEDGER_SCHEMA, is_schema

# Form of an instance name, which is part of a group id, of metric labels and, with `_` for `-`, of a schema name.
_INSTANCE = r"^([a-z0-9]+(-[a-z0-9]+)*)?$"
# The topics of the contract's routing table; a site that routes types elsewhere sets its own.
TOPICS = (PRESCRIPTIONS_TOPIC, ACCOUNTS_TOPIC)
# Without enrollments and pings, which are not about orders.
ORDER_TOPICS = (PRESCRIPTIONS_TOPIC,)
# Seconds; a receiver should respond before it processes a request. DRx itself does not wait longer.
TIMEOUT_MAX_S = 60.0
# Hosts in a URL, with ports; PostgreSQL allows several.
_HOST = r"([A-Za-z0-9._%-]+|\[[0-9A-Fa-f:.%]+\])(:[0-9]+)?"
_are_hosts = re.compile(rf"({_HOST}(,{_HOST})*)?", re.ASCII).fullmatch

UNNAMED = "the configured server"
"""Replaces a URL that cannot be shown."""


def is_plain(text: str) -> bool:
    """Return whether `text` can be a header value: printable ASCII without spaces, at least one character."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def read_token(file: Path, *, code: str) -> str:
    """Read a token for a header; a systemic `TransientError` with `code` if it is unreadable or invalid."""
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not is_plain(token):
        raise TransientError(code, systemic=True)
    return token


def _words(given: object) -> object:
    return tuple(filter(None, (word.strip() for word in given.split(",")))) if isinstance(given, str) else given


def aware_instant(text: str) -> datetime | None:
    """Parse an instant in ISO 8601; None if it is invalid or has no zone."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if instant.tzinfo is None else instant


def _aware(given: object) -> object:
    if not isinstance(given, str):
        return given
    if (instant := aware_instant(given)) is None:
        raise ValueError("a time with its zone, such as 2026-01-31T12:00:00Z")
    return instant


def _schema(name: str) -> str:
    if not is_schema(name) or name == LEDGER_SCHEMA:
        raise ValueError(f"a-z, 0-9 and _, at most 63 of them, not pg_… and not {LEDGER_SCHEMA}")
    return name


WordList = Annotated[tuple[str, ...], BeforeValidator(_words), Field(min_length=1)]
"""Names separated by commas."""
Instant = Annotated[datetime, BeforeValidator(_aware)]
"""An instant with its zone, RFC 3339."""
SchemaName = Annotated[str, AfterValidator(_schema)]
"""A schema for a consumer's own tables."""
# Settings shared by consumers are described here, for docs/consumer-settings.md; each consumer's page has the rest.
TablesSchema = Annotated[
    SchemaName, Field(description="schema of its tables; another schema is another group, `NAME.SCHEMA`")
]
Topics = Annotated[WordList, Field(description="what it reads, separated by commas")]
Imports = Annotated[
    Literal["skip", "send"],
    Field(description="whether [imported](write-a-consumer.md#arguments-of-a-handler) records are passed on"),
]
AllowHttp = Annotated[
    bool, Field(description="permits `http://`, in a test or to a proxy on the same host: health information is sent")
]
AllowPlaintext = Annotated[
    bool, Field(description="connect without TLS, in a test or to a proxy on the same host: health information is sent")
]


class Options(BaseModel):
    """Base of a consumer's settings: one field with bounds per setting; values are given as strings and never shown."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class EndpointOptions(Options):
    """Settings of a consumer with several instances, each for another endpoint and with its own group."""

    instance: str = Field(
        "",
        pattern=_INSTANCE,
        description="name of its server, in lower case: each instance has its own group, `NAME.INSTANCE`",
    )

    def group(self, name: str) -> str:
        """Return the group id of the consumer `name` for this endpoint: `name`, or `name.instance`."""
        return f"{name}.{self.instance}" if self.instance else name

    def schema_name(self, name: str) -> str:
        """Return the schema of the consumer's tables; each instance has its own."""
        return self.group(name).replace(".", "_").replace("-", "_")


class ServerOptions(EndpointOptions):
    """Settings of a consumer that sends events of all or some accounts to a server over TLS."""

    ca_file: Path | None = Field(None, description="PEM: certificates of authorities to trust; unset: the system's")
    cert_file: Path | None = Field(None, description="PEM: client certificate, if the server requires one")
    key_file: Path | None = Field(None, description="PEM: private key of the client certificate")
    accounts: WordList | None = Field(
        None, description="account ids, separated by commas; events of others are neither sent nor stored; unset: all"
    )

    def wants_account(self, event: Event) -> bool:
        """Return whether an event is of a configured account."""
        return self.accounts is None or event.value["account_id"] in self.accounts


class HttpOptions(ServerOptions):
    """Settings of a consumer that sends over HTTP."""

    allow_http: AllowHttp = False
    timeout_s: float = Field(10.0, ge=0.1, le=TIMEOUT_MAX_S)

    def session(self, name: str) -> dict[str, Any]:
        """Return the arguments of `consumers.http.open_http` from these settings, for the consumer `name`."""
        return {
            **self.model_dump(include={"allow_http", "timeout_s", "ca_file", "cert_file", "key_file"}),
            "allowed_by": f"{variable(name, 'allow_http')}=true",
        }


def schema_group(name: str, schema: str) -> str:
    """Return the group id of the consumer `name` with tables in `schema`: each schema has its own progress."""
    return name if schema == name else f"{name}.{schema}"


AnyOptions = TypeVar("AnyOptions", bound=Options)


def read_options(model: type[AnyOptions], name: str, given: Mapping[str, str]) -> AnyOptions:
    """Return the settings of the consumer `name`; `given` is `Setup.options`. `ConfigError` shows no value."""
    try:
        return model.model_validate(dict(given))
    except ValidationError as exc:
        errors = exc.errors(include_input=False, include_url=False)
        raise ConfigError("; ".join(_complaint(model, name, each) for each in errors)) from None


def variable(consumer: str, option: str) -> str:
    """Return the variable that sets an option of a consumer."""
    return f"CONSUMER_{consumer.replace('-', '_').upper()}__{option.upper()}"


def split_address(url: str, schemes: Collection[str]) -> tuple[SplitResult, str] | None:
    """Return the parts of a URL, and its hosts with ports (or empty); None if a part may be a secret.

    If a password contains `/`, `?` or `#`, the rest of it up to the `@` looks like a path, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    hosts = parts.netloc.rpartition("@")[2]
    if parts.scheme not in schemes or "@" in parts.path + parts.query + parts.fragment or not _are_hosts(hosts):
        return None
    return parts, hosts


def server_of(url: str) -> str:
    """Return the host of a URL only, since the rest may contain a secret."""
    found = split_address(url, ("http", "https"))
    if found is None or not found[1]:
        return UNNAMED
    parts, hosts = found
    return f"{parts.scheme}://{hosts}"


def database_of(dsn: str) -> str:
    """Return only server and database of a PostgreSQL URL."""
    found = split_address(dsn, ("postgresql", "postgres"))
    if found is None:
        return UNNAMED
    parts, hosts = found
    if not hosts and "host" in parts.query:  # it is in a parameter
        return UNNAMED
    return f"{hosts or 'the local socket'}{parts.path}"


def _complaint(model: type[Options], name: str, error: ErrorDetails) -> str:
    field = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        known = ", ".join(info.alias or each for each, info in model.model_fields.items())
        return f"{name} has no setting {field!r}; it has {known}"
    if error["type"] == "missing":
        return f"{name}.{field} is missing: set {variable(name, field)}"
    # A rule about several settings names them itself.
    setting = f"{name}.{field}" if field else name
    return f"{setting}: {error['msg'].removeprefix('Value error, ')}"
