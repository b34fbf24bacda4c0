"""Build the consumer `read_model`, an entry point of the group `drx_bridge.consumers`."""

from importlib.resources import files
from typing import Any

from consumers.api import Batches, Consumer, Setup, Tables
from consumers.options import read_options
from consumers.read_model.apply import Applier, ReadModelMetrics
from consumers.read_model.history import prunable
from consumers.read_model.options import NAME, ReadModelOptions

MIGRATIONS = files("consumers.read_model") / "migrations"
# Records per batch, reached only when lagging. Larger batches write a prescription's row less often. With 500, it
# applies a fifth fewer events a second and takes 15 MiB less; with 2,000, two percent more and 15 MiB more.
BATCH_RECORDS = 1_000
# Seconds between two queries of the views, which take milliseconds; limits are hours, or minutes for silence.
TIMERS_EVERY_S = 60.0


def open_read_model(setup: Setup) -> Consumer:
    """Build the consumer from its settings."""
    options = read_options(ReadModelOptions, NAME, setup.options)
    metrics = ReadModelMetrics(setup.registry)
    consumer = Consumer(
        NAME,
        options.topics,
        mode=Batches(records=BATCH_RECORDS),
        group=options.group,
        history=prunable(options.tables_schema),
        tables=Tables(migrations=MIGRATIONS, schema=options.tables_schema),
        discloses=[f"whole events, in clear: tables of the schema {options.tables_schema} of this database"],
    )
    consumer.handler(Applier(schema=options.tables_schema, metrics=metrics, alarms_from=options.alarms_from))
    consumer.job(every_s=TIMERS_EVERY_S)(WaitCounts(options.tables_schema, metrics=metrics))
    return consumer


class WaitCounts:
    """A job that counts overdue waits, by the limits in the table `timer`; it only reads."""

    def __init__(self, schema: str, *, metrics: ReadModelMetrics) -> None:
        self._metrics = metrics
        self._overdue = f'select kind, waiting from "{schema}".overdue_count'  # noqa: S608 -- a validated name
        self._silent = f'select source, silent from "{schema}".source_silence'  # noqa: S608 -- as above

    async def __call__(self, connection: Any) -> None:
        """Set the metrics to the current numbers of overdue waits and silent sources."""
        for kind, waiting in await connection.fetch(self._overdue):
            self._metrics.overdue.labels(kind=kind).set(waiting)
        silence = await connection.fetch(self._silent)
        self._metrics.source_silent.clear()
        for source, silent in silence:
            self._metrics.source_silent.labels(source=source).set(silent)
        self._metrics.timers_checked.set_to_current_time()
