"""All settings of a consumer process: environment `CONSUMER_<SECTION>__<NAME>` over the file in `CONSUMER_CONFIG`."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, create_model, model_validator
from pydantic_settings import SettingsConfigDict

from bridge.errors import ConfigError
from bridge.process_checks import check_process
from bridge.registry.address import RegistryAddress
from bridge.runtime.configuration import FileSettings, Section, read_settings
from bridge.runtime.findings import Finding, failures
from bridge.settings import PROCESS_RISKS, Brokers, CommaList, LogSettings, Management, of

PREFIX = "CONSUMER_"
# A name is a group id, a metric label and, in capitals, part of a variable name.
NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
# Seconds of shutdown beyond the configured waits, if the grace period allows it.
MARGIN_S = 5.0


def _text(value: object) -> object:
    """Convert TOML numbers, booleans and lists of strings to the string that a variable would have."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


OptionTexts = dict[str, Annotated[str, BeforeValidator(_text)]]


class MemberSettings(Brokers):
    """The brokers, and this process as a member of its group."""

    # Less than `MAX_POLL_S` of `consumers.app`.
    session_s: Annotated[float, Field(ge=6, le=300)] = Field(
        45.0, description="a member without heartbeats for this long is removed"
    )
    offset_reset: Literal["none", "earliest", "latest"] = Field(
        "none", description="where a group without offsets begins; none: as set by `drx-consumer init`"
    )
    accept_cluster_id: str | None = Field(
        None, description="Kafka cluster to which stored offsets belong as well; remove it afterwards"
    )


class Postgres(Section):
    """The database of progress, parked records and transactional effects."""

    dsn: SecretStr | None = Field(None, description="postgresql://user@host:port/database; may contain a password")
    dsn_file: Path | None = Field(None, description="file whose first line is the DSN")
    pool_size: int = Field(
        8, ge=2, le=100, description="maximum connections of this process; transactional lanes leave one free"
    )

    @model_validator(mode="after")
    def _one_dsn(self) -> Self:
        if self.dsn is not None and self.dsn_file is not None:
            raise ValueError("postgres.dsn and postgres.dsn_file are both set: set only one")
        return self

    def address(self) -> str:
        """Return the DSN; `ConfigError` if there is none, or its file cannot be used."""
        if self.dsn is not None:
            return self.dsn.get_secret_value()
        if self.dsn_file is None:
            raise ConfigError("no database is configured; set CONSUMER_POSTGRES__DSN or CONSUMER_POSTGRES__DSN_FILE")
        try:
            first = self.dsn_file.read_text().partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError):
            first = ""
        if not first:
            raise ConfigError(f"postgres.dsn_file: cannot read {self.dsn_file}, or its first line is empty")
        return first


class ConsumerShutdownSettings(Section):
    """The time limit of shutdown."""

    # A rebalance also drains, so `workers_s` must be less than the 90 s of `Timing.rebalance_s`.
    grace_s: Annotated[float, Field(gt=0, le=110)] = Field(45.0, description="terminationGracePeriodSeconds of the pod")

    @property
    def drain_s(self) -> float:
        """Seconds to settle records in flight: 30 of 45."""
        return self.grace_s * 2 / 3

    @property
    def workers_s(self) -> float:
        """Seconds to settle and commit records in flight: 35 of 45, 5 of them for the last commit."""
        return self.grace_s * 7 / 9

    @property
    def overdue_s(self) -> float:
        """Seconds after which the process exits even if something hangs: after its own waits, before the kill."""
        return max(self.grace_s - MARGIN_S, self.grace_s * 8 / 9)


class ConsumerSettings(FileSettings):
    """The whole configuration of a consumer process, immutable; each installed consumer adds a section."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    accept: Annotated[CommaList, of(PROCESS_RISKS)] = Field(
        "", description=f"risks that are accepted, of {', '.join(PROCESS_RISKS)}"
    )
    kafka: MemberSettings = MemberSettings()
    registry: RegistryAddress = RegistryAddress()
    postgres: Postgres = Postgres()
    management: Management = Management()
    shutdown: ConsumerShutdownSettings = ConsumerShutdownSettings()
    log: LogSettings = LogSettings()

    def options(self, consumer: str) -> Mapping[str, str]:
        """Return the consumer's own settings, keys in lower case."""
        own: Mapping[str, str] = getattr(self, section(consumer))
        return own


def check_settings(settings: ConsumerSettings) -> Iterator[Finding]:
    """Yield findings about the settings of any consumer; only files are opened."""
    yield from failures("postgres", settings.postgres.address)
    yield from check_process(settings.kafka, settings.log, settings.accept, prefix=PREFIX)


def section(consumer: str) -> str:
    """Return the section of a consumer's own settings; `ConfigError` if the name cannot be one."""
    named = consumer.replace("-", "_")
    why = ""
    if NAME.fullmatch(consumer) is None:
        why = "a lower-case letter, then letters and digits, with single - or _ between them"
    elif named in ConsumerSettings.model_fields:
        why = f"the section CONSUMER_{named.upper()}__… of the runtime has that name"
    elif hasattr(ConsumerSettings, named):
        why = "the settings of the runtime use that name themselves"
    if why:
        raise ConfigError(f"a consumer cannot be named {consumer!r}: {why}")
    return named


def load_settings(consumers: Iterable[str]) -> ConsumerSettings:
    """Read the configuration; each of the installed `consumers` may have a section."""
    sections: dict[str, Any] = {section(name): (OptionTexts, Field({})) for name in consumers}
    return read_settings(create_model("InstalledSettings", __base__=ConsumerSettings, **sections))
