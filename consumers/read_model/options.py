"""The read model's own settings: `CONSUMER_READ_MODEL__<KEY>`; each is described in `README.md` beside this."""

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
        """Group id."""
        return schema_group(NAME, self.tables_schema)
