"""The read model's own settings: `CONSUMER_READ_MODEL__<KEY>`."""

from __future__ import annotations

from pydantic import Field

from consumers.options import TOPICS, Instant, Options, SchemaName, Words, schema_group

NAME = "read_model"


class ReadModelOptions(Options):
    """All that can be set.

    Attributes:
        tables_schema: Schema of the tables (`schema`); each schema is a separate read model.
        topics: Topics that it reads.
        alarms_from: Contradictions raised by events received before this time are not counted as new.
    """

    tables_schema: SchemaName = Field(NAME, alias="schema")
    topics: Words = TOPICS
    alarms_from: Instant | None = None

    @property
    def group(self) -> str:
        """Group id."""
        return schema_group(NAME, self.tables_schema)
