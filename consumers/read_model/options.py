"""The read model's own settings: `CONSUMER_READ_MODEL__<KEY>`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from consumers.options import TOPICS, Instant, Options, SchemaName, Words, schema_group

NAME = "read_model"
# Only a read model that lags has this many waiting. Larger batches read, roll up and write a prescription's row less
# often: 500 applied a fifth fewer events a second in 15 MiB less, and 2,000 two percent more in 15 MiB more.
BATCH_RECORDS = 1_000
_BATCH_MAX = 5_000
_HOURS_MAX = 24 * 366.0


Hours = Annotated[float, Field(ge=0.001, le=_HOURS_MAX)]


class ReadModelOptions(Options):
    """All that can be set.

    Attributes:
        tables_schema: Schema of the tables (`schema`); each schema is a separate read model.
        topics: Topics that it reads.
        batch_records: Most events in one transaction.
        unconfirmed_h: Hours after which a message sent without an answer is overdue.
        cancel_unanswered_h: The same for a cancel request without an answer.
        request_open_h: The same for an open renewal or change request.
        silence_gaps: A source is silent after this many times its usual gap.
        silence_min_s: A source is not silent before this time.
        timers_every_s: How often the timers are checked.
        alarms_from: Contradictions raised by events received before this time are not counted as new.
    """

    tables_schema: SchemaName = Field(NAME, alias="schema")
    topics: Words = TOPICS
    batch_records: int = Field(BATCH_RECORDS, ge=1, le=_BATCH_MAX)
    # docs/contract.md §6, "Timers".
    unconfirmed_h: Hours = 24.0
    cancel_unanswered_h: Hours = 48.0
    request_open_h: Hours = 14 * 24.0
    # The usual gap is nearly the longest of the last thousand, so a few of them are a silence. A quarter of an hour
    # keeps a source that sends every second from alarming at a short pause.
    silence_gaps: float = Field(5.0, ge=1, le=_HOURS_MAX)
    silence_min_s: float = Field(900.0, ge=0.001, le=_HOURS_MAX * 3600)
    timers_every_s: float = Field(60.0, ge=1, le=_HOURS_MAX)
    alarms_from: Instant | None = None

    @property
    def group(self) -> str:
        """Group id."""
        return schema_group(NAME, self.tables_schema)
