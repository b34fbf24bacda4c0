"""The settings of `read_model`: `CONSUMER_READ_MODEL__<KEY>`, described in its `README.md`."""

from pydantic import Field

from consumers.options import TOPICS, Instant, Options, TablesSchema, Topics, schema_group

NAME = "read_model"


class ReadModelOptions(Options):
    """The settings of `read_model`."""

    tables_schema: TablesSchema = Field(NAME, alias="schema")
    topics: Topics = TOPICS
    alarms_from: Instant | None = None

    @property
    def group(self) -> str:
        """Return the group id."""
        return schema_group(NAME, self.tables_schema)
