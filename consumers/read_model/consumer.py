"""Builds the consumer `read_model`, an entry point of the group `drx_bridge.consumers`."""

from __future__ import annotations

from importlib.resources import files

from consumers.api import Batches, Consumer, Setup, Tables
from consumers.options import read_options
from consumers.read_model.apply import Applier
from consumers.read_model.metrics import ReadModelMetrics
from consumers.read_model.options import NAME, ReadModelOptions
from consumers.read_model.pruning import history
from consumers.read_model.timers import Timers

MIGRATIONS = files("consumers.read_model") / "migrations"
# Only a read model that lags has this many waiting. Larger batches read, roll up and write a prescription's row less
# often: 500 applied a fifth fewer events a second in 15 MiB less, and 2,000 two percent more in 15 MiB more.
BATCH_RECORDS = 1_000
# The limits are hours, but of a silence minutes; a look at the views takes milliseconds.
TIMERS_EVERY_S = 60.0


def open_read_model(setup: Setup) -> Consumer:
    """Build it from its settings.

    Raises:
        ConfigError: A setting cannot be used.
    """
    options = read_options(ReadModelOptions, NAME, setup.options)
    metrics = ReadModelMetrics(setup.registry)
    consumer = Consumer(
        NAME,
        options.topics,
        mode=Batches(records=BATCH_RECORDS),
        # An event of a newer release's type is parked with its successors, so that none is lost.
        unknown="park",
        group=options.group,
        history=history(options.tables_schema),
        tables=Tables(migrations=MIGRATIONS, schema=options.tables_schema),
        discloses=[f"whole events, in clear: tables of the schema {options.tables_schema} of this database"],
    )
    consumer.handler(Applier(schema=options.tables_schema, metrics=metrics, alarms_from=options.alarms_from))
    consumer.job(every_s=TIMERS_EVERY_S)(Timers(options.tables_schema, metrics=metrics))
    return consumer
