"""All settings of the bridge: environment `BRIDGE_<SECTION>__<NAME>` over the TOML file in `BRIDGE_CONFIG`."""

import socket
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from bridge.kafka.connection import KafkaConnection
from bridge.kafka.record import MESSAGE_MAX_BYTES, MESSAGE_MAX_LEAST_BYTES, MESSAGE_MAX_MOST_BYTES, RAW_HEAD_MAX_BYTES
from bridge.registry.address import RegistryAddress
from bridge.runtime.configuration import FileSettings, Section, read_settings

PREFIX = "BRIDGE_"
# Seconds of shutdown beyond the configured waits, if the grace period allows it.
MARGIN_S = 5.0

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
# At most 64 characters, to keep names readable in paths, metric labels and log fields.
SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


Rate = Annotated[float, Field(gt=0, le=1_000_000)]
# Risks that an operator may accept: for any process, for the ingress, and for a source.
PROCESS_RISKS = ("plaintext_kafka", "debug_log")
INGRESS_RISKS = (*PROCESS_RISKS, "generated_spool_key")
SOURCE_RISKS = (
    *("cidr_alone", "url_token_alone", "no_tls", "unsigned_id", "undated", "tolerance_off", "every_proxy_trusted"),
    *("shared_key", "weak_digest", "unsigned_body"),
)


def _comma_list(value: object) -> object:
    """Convert a TOML list to the string that a variable would have."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    return value


# Names separated by commas; in a TOML file also a list.
CommaList = Annotated[str, BeforeValidator(_comma_list)]


def named(text: str) -> frozenset[str]:
    """Return the names of a comma-separated list."""
    return frozenset(name.strip() for name in text.split(",")) - {""}


def of(known: Collection[str]) -> AfterValidator:
    """Return a validator that refuses names other than these."""

    def check(value: str) -> str:
        if not named(value) <= set(known):
            raise ValueError(f"unknown name; known are {', '.join(known)}")
        return value

    return AfterValidator(check)


class HttpSettings(Section):
    """The public port."""

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - a pod listens on its own address
    port: Port = Field(8080, description="port to listen on")
    body_max_bytes: int = Field(262_144, ge=1, le=16_777_216, description="larger bodies are refused with 413")
    deadline_s: Seconds = Field(4.0, description="time limit for a response, from the receipt")
    connections_max: int = Field(
        2048,
        ge=16,
        le=65_536,
        description="maximum open connections; a new one closes the oldest without a verified delivery",
    )
    tls_in_front: bool = Field(
        default=False, description="a proxy in front terminates TLS; needed for secrets that are sent"
    )
    address_rate_per_s: Rate | None = Field(
        None, description="maximum deliveries of one address per second, and burst; more get 429; unset: no limit"
    )
    trusted_proxies: CommaList = Field(
        "", description="networks of proxies, separated by commas, whose X-Forwarded-For names the address"
    )
    inflight_max: int = Field(1024, ge=1, le=65_536, description="maximum deliveries in progress")


class Management(Section):
    """Port for probes and metrics."""

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - a pod listens on its own address
    port: Port = Field(9090, description="port to listen on")


# A secret is sent to this URL, so plain HTTP is allowed only on this machine.
_ENDPOINT = r"^(https://|http://(127\.0\.0\.1|localhost)[:/])[^@\s]+$"


class Brokers(Section):
    """Connection and credentials for Kafka."""

    bootstrap_servers: CommaList = Field("127.0.0.1:9092", min_length=1, description="host:port, separated by commas")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how connections to the brokers are protected"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="SASL mechanism; with SASL only"
    )
    sasl_username_file: Path | None = Field(
        None, description="file with the user name, or the client id of OAUTHBEARER"
    )
    sasl_password_file: Path | None = Field(None, description="file with the password, or the secret of that client")
    sasl_token_url: str | None = Field(
        None, pattern=_ENDPOINT, description="token endpoint of OAUTHBEARER, by client credentials"
    )
    sasl_token_scope: str = Field("", description="scope to request there")
    sasl_token_provider: str | None = Field(
        None,
        pattern=r"^[\w.]+:\w+$",
        description="module:function that returns an aiokafka token provider, instead of sasl_token_url",
    )
    ssl_cafile: Path | None = Field(None, description="certificates to trust; unset: the system's")
    ssl_certfile: Path | None = Field(None, description="client certificate, if brokers require one")
    ssl_keyfile: Path | None = Field(None, description="private key of the client certificate")

    @property
    def connection(self) -> KafkaConnection:
        """Return the connection of clients to these brokers."""
        return KafkaConnection(**{name: getattr(self, name) for name in Brokers.model_fields})

    @model_validator(mode="after")
    def _sasl_is_complete(self) -> Self:
        by_token = [self.sasl_token_url, self.sasl_token_provider]
        given = [self.sasl_mechanism, self.sasl_username_file, self.sasl_password_file]
        if (self.sasl_mechanism == "OAUTHBEARER") != (by_token.count(None) == 1):
            raise ValueError("OAUTHBEARER, and no other mechanism, needs either sasl_token_url or sasl_token_provider")
        if self.security_protocol.startswith("SASL") and None in given and self.sasl_token_provider is None:
            raise ValueError("SASL needs sasl_mechanism, sasl_username_file and sasl_password_file")
        if not self.security_protocol.startswith("SASL") and any(part is not None for part in given):
            raise ValueError("sasl_* is set but security_protocol is not SASL_SSL or SASL_PLAINTEXT")
        return self


class KafkaSettings(Brokers):
    """The brokers, and the topics written to."""

    partitions: int = Field(
        12, ge=1, le=10_000, description="partitions of every topic; decides the partition of a key"
    )
    message_max_bytes: int = Field(
        MESSAGE_MAX_BYTES,
        ge=MESSAGE_MAX_LEAST_BYTES,
        le=MESSAGE_MAX_MOST_BYTES,
        description="max.message.bytes of every topic; a larger event is parked as received",
    )
    routes: dict[str, str] = Field(
        {}, description="type pattern to topic, before the built-in ones; longest match wins"
    )


class Registry(RegistryAddress):
    """The schema registry, if one is used."""

    ids_file: Path | None = Field(None, description="ids of that registry, written by `schemas push` or at startup")


class SourceSettings(Section):
    """One sender of webhooks."""

    profile: str = Field(min_length=1, description="format of the sender's bodies, such as drx_standard")
    environment: Literal["production", "sandbox"] = Field(description="environment of its events; others are parked")
    secrets_dir: Path | None = Field(
        None, description="directory with one file per secret slot; required unless the scheme is cidr alone"
    )
    scheme: str = Field(
        "standard_webhooks",
        min_length=1,
        max_length=200,
        description="scheme that verifies deliveries: standard_webhooks, body_hmac, ed25519, secret_header, basic, "
        "url_token, cidr, jwt, github, stripe, shopify, photon, dosespot; several joined by `+` must all pass",
    )
    scheme_parameters: dict[str, CommaList] = Field(
        {}, description="a parameter of the scheme, such as SCHEME_HEADER for `body_hmac`"
    )
    tolerance_s: Annotated[
        Annotated[int, Field(ge=1, le=86_400)] | None, BeforeValidator(lambda value: None if value == "off" else value)
    ] = Field(300, description="seconds a delivery's timestamp may be off, or `off`")
    challenge: str = Field(
        "",
        description="handshake by which the sender registers the endpoint: query:NAME, body:MEMBER, body_json:MEMBER, "
        "cloudevents or eventgrid",
    )
    challenge_token: str = Field(
        "", description="where an unsigned handshake must have the source's secret: header:NAME or member:NAME"
    )
    body: Literal["json", "xml"] = Field(
        "json", description="format of its bodies; xml needs a mapping file and the extra `xml`"
    )
    options: dict[str, str] = Field({}, description="options of its profile, such as account_id or zone")
    ignore: CommaList = Field(
        "", description="names of types to ignore, separated by commas: they get 200 and are not written"
    )
    answer_200: bool = Field(
        default=False, description="respond with 200 instead of 202, for senders that accept only 200"
    )
    accept: Annotated[CommaList, of(SOURCE_RISKS)] = Field(
        "", description=f"risks that are accepted, of {', '.join(SOURCE_RISKS)}"
    )
    rate_per_s: Rate | None = Field(
        None, description="maximum deliveries per second, verified or not, and burst; more get 429; unset: no limit"
    )
    # The same bounds as for a profile's default.
    dedupe_window_s: Annotated[int, Field(ge=600, le=30 * 86_400)] | None = Field(
        None,
        description="how long ids are remembered, at least twice tolerance_s; unset: the profile's value, else 86,400",
    )

    @model_validator(mode="before")
    @classmethod
    def _gather_parameters(cls, given: object) -> object:
        """Gather the parameters of schemes; the schemes refuse unknown ones."""
        if not isinstance(given, dict):
            return given
        names = [name for name in given if name.startswith("scheme_") and name not in cls.model_fields]
        kept = {name: value for name, value in given.items() if name not in names}
        if names:
            named = {name.removeprefix("scheme_"): given[name] for name in names}
            kept["scheme_parameters"] = {**kept.get("scheme_parameters", {}), **named}
        return kept

    @property
    def ignored(self) -> frozenset[str]:
        """The sender's names of types to ignore."""
        return named(self.ignore)


class Dedupe(Section):
    """Memory for ids of events in Kafka or the spool, so that retries are not written again."""

    capacity: int = Field(1_000_000, ge=1000, le=100_000_000, description="maximum ids kept; a million take 36 MiB")


class SpoolSettings(Section):
    """Local disk for events that Kafka does not acknowledge in time."""

    enabled: bool = Field(default=True, description="if off, deliveries not in Kafka in time get 503")
    dir: Path = Field(
        Path("/var/lib/drx-bridge/spool"), description="directory for this process only, on persistent storage"
    )
    capacity_bytes: int = Field(
        1_073_741_824, ge=1_048_576, le=1_099_511_627_776, description="maximum bytes of events; more are refused"
    )
    key_dir: Path | None = Field(None, description="directory with one file per key; unset: `keys` in the spool's")


class ShutdownSettings(Section):
    """The time limit of shutdown."""

    grace_s: Seconds = Field(45.0, description="terminationGracePeriodSeconds of the pod")

    @property
    def drain_s(self) -> float:
        """Seconds to respond to requests in flight: 15 of 45, more than three response deadlines."""
        return self.grace_s / 3

    @property
    def flush_s(self) -> float:
        """Seconds to close the producer: 10 of 45, since it may wait for a broker that is being replaced."""
        return self.grace_s * 2 / 9

    @property
    def overdue_s(self) -> float:
        """Seconds after which the process exits even if something hangs: after its own waits, before the kill."""
        return max(self.grace_s - MARGIN_S, self.grace_s * 7 / 9)


class HeartbeatSettings(Section):
    """A signed `system.ping` through the public port, which distinguishes an outage from a quiet sender."""

    enabled: bool = Field(default=True, description="post heartbeats through the public port")


class LogSettings(Section):
    """The log on standard output."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    id_key_dir: Path | None = Field(
        None,
        description="directory with one file per key; `current` hashes ids in lines, which `drx-bridge hash-id` finds; "
        "unset: each process creates a random key",
    )


class Settings(FileSettings):
    """The whole configuration of the bridge, immutable."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    instance: str = Field(
        default_factory=socket.gethostname,
        pattern=r"^[A-Za-z0-9._-]{1,128}$",
        description="name of this process in drx_ordinal; distinct for each replica",
    )
    accept: Annotated[CommaList, of(INGRESS_RISKS)] = Field(
        "", description=f"risks that are accepted, of {', '.join(INGRESS_RISKS)}"
    )
    http: HttpSettings = HttpSettings()
    management: Management = Management()
    kafka: KafkaSettings = KafkaSettings()
    registry: Registry = Registry()
    dedupe: Dedupe = Dedupe()
    sources: dict[SourceName, SourceSettings] = Field({})
    spool: SpoolSettings = SpoolSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    heartbeat: HeartbeatSettings = HeartbeatSettings()
    log: LogSettings = LogSettings()

    @property
    def spool_after_s(self) -> float:
        """Seconds that a delivery waits for Kafka before it is spooled; the other half is for the disk."""
        return self.http.deadline_s / 2

    @model_validator(mode="after")
    def _a_stop_answers(self) -> Self:
        if not self.http.deadline_s < self.shutdown.drain_s:
            msg = "http.deadline_s must be less than a third of shutdown.grace_s, or a shutdown would cut off responses"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _a_body_fits_a_record(self) -> Self:
        if self.http.body_max_bytes + RAW_HEAD_MAX_BYTES > self.kafka.message_max_bytes:
            raise ValueError(
                f"http.body_max_bytes must leave {RAW_HEAD_MAX_BYTES} of kafka.message_max_bytes, or the largest body "
                "could not even be parked"
            )
        return self


def load_settings() -> Settings:
    """Read the configuration of the bridge."""
    return read_settings(Settings)
