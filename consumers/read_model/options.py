"""The read model's own settings: `CONSUMER_READ_MODEL__<KEY>`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bridge.errors import ConfigError

NAME = "read_model"
# The topics of the contract's routing table; a site that routes some types elsewhere names its own.
TOPICS = ("drx.prescriptions.v1", "drx.accounts.v1")
# A schema is part of a group id and of statements; PostgreSQL keeps `pg_` for itself and cuts names after 63 bytes.
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
# The ledger's own: what is made and dropped with a read model must not lie there.
_LEDGER_SCHEMA = "drx_consumer"
# Only a read model that is behind finds so many waiting. The more events of a prescription lie in one batch, the fewer
# times its row is read, rolled up and written. Events a second and MiB, one machine with two cores: 500 9,300 and 175;
# 1,000 11,400 and 190; 2,000 11,600 and 205.
BATCH_RECORDS = 1_000
_BATCH_MAX = 5_000
_HOURS_MAX = 24 * 366.0


@dataclass(frozen=True, slots=True)
class Options:
    """All that can be set.

    Attributes:
        schema: Where the tables are; each schema is a read model of its own.
        topics: What it reads.
        batch_records: Events of one transaction at most.
        unconfirmed_h: A message sent without an answer is overdue after so many hours.
        cancel_unanswered_h: A cancel request without an answer.
        request_open_h: An open renewal or change request.
        silence_gaps: A source is silent after so many times its usual gap,
        silence_min_s: and never sooner than this.
        timers_every_s: How often the timers are looked at.
        alarms_from: Contradictions that an event received before raises are counted for no alarm; aware, or None.
    """

    schema: str = NAME
    topics: tuple[str, ...] = TOPICS
    batch_records: int = BATCH_RECORDS
    # docs/contract.md §6, "Timers".
    unconfirmed_h: float = 24.0
    cancel_unanswered_h: float = 48.0
    request_open_h: float = 14 * 24.0
    # The usual gap is nearly the longest of the last thousand, so a few of them are a silence; a quarter of an hour
    # keeps a source that sends every second from raising an alarm at a hiccup.
    silence_gaps: float = 5.0
    silence_min_s: float = 900.0
    timers_every_s: float = 60.0
    alarms_from: datetime | None = None

    @property
    def group(self) -> str:
        """A schema's own group id: it has its own progress, inbox and parked keys."""
        return NAME if self.schema == NAME else f"{NAME}.{self.schema}"


def read_options(given: Mapping[str, str]) -> Options:
    """Read the section's values.

    Raises:
        ConfigError: One is unknown, or cannot be used; its value is not shown.
    """
    unknown = sorted(set(given) - set(Options.__dataclass_fields__))
    if unknown:
        msg = f"{NAME} has no setting {unknown[0]!r}; it has {', '.join(Options.__dataclass_fields__)}"
        raise ConfigError(msg)
    default = Options()
    return Options(
        schema=_schema(given.get("schema", default.schema)),
        topics=_topics(given.get("topics", ",".join(default.topics))),
        batch_records=int(_number(given, "batch_records", default.batch_records, least=1, greatest=_BATCH_MAX)),
        unconfirmed_h=_number(given, "unconfirmed_h", default.unconfirmed_h),
        cancel_unanswered_h=_number(given, "cancel_unanswered_h", default.cancel_unanswered_h),
        request_open_h=_number(given, "request_open_h", default.request_open_h),
        silence_gaps=_number(given, "silence_gaps", default.silence_gaps, least=1),
        silence_min_s=_number(given, "silence_min_s", default.silence_min_s),
        timers_every_s=_number(given, "timers_every_s", default.timers_every_s, least=1),
        alarms_from=_instant(given, "alarms_from"),
    )


def _schema(name: str) -> str:
    if _SCHEMA.fullmatch(name) is None or name == _LEDGER_SCHEMA:
        msg = f"{NAME}.schema: a-z, 0-9 and _, at most 63 of them, not pg_… and not {_LEDGER_SCHEMA}"
        raise ConfigError(msg)
    return name


def _topics(names: str) -> tuple[str, ...]:
    topics = tuple(filter(None, (name.strip() for name in names.split(","))))
    if not topics:
        msg = f"{NAME}.topics: names of topics with commas between them"
        raise ConfigError(msg)
    return topics


def _instant(given: Mapping[str, str], name: str) -> datetime | None:
    if not given.get(name):
        return None
    try:
        instant = datetime.fromisoformat(given[name])
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        msg = f"{NAME}.{name} must be a time with its zone, such as 2026-01-31T12:00:00Z"
        raise ConfigError(msg)
    return instant


def _number(
    given: Mapping[str, str], name: str, default: float, *, least: float = 0.001, greatest: float = _HOURS_MAX
) -> float:
    if name not in given:
        return default
    try:
        number = float(given[name])
    except ValueError:
        number = -1.0
    if not least <= number <= greatest:
        msg = f"{NAME}.{name} must be a number from {least:g} to {greatest:g}"
        raise ConfigError(msg)
    return number
