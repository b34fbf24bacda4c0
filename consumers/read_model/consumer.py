"""Builds the consumer `read_model`, an entry point of the group `drx_bridge.consumers`."""

from __future__ import annotations

from importlib.resources import files

from consumers.api import WINDOW_RECORDS, Batches, Consumer, Setup, Tables
from consumers.options import read_options
from consumers.read_model.apply import Applier
from consumers.read_model.metrics import ReadModelMetrics
from consumers.read_model.options import NAME, ReadModelOptions
from consumers.read_model.pruning import history
from consumers.read_model.timers import Timers

MIGRATIONS = files("consumers.read_model") / "migrations"


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
        mode=Batches(records=options.batch_records, window_records=max(WINDOW_RECORDS, options.batch_records)),
        # An event of a newer release's type is parked with its successors, so that none is lost.
        unknown="park",
        group=options.group,
        history=history(options.tables_schema),
        tables=Tables(migrations=MIGRATIONS, schema=options.tables_schema),
        discloses=[f"whole events, in clear: tables of the schema {options.tables_schema} of this database"],
    )
    consumer.handler(Applier(schema=options.tables_schema, metrics=metrics, alarms_from=options.alarms_from))
    consumer.job(every_s=options.timers_every_s)(Timers(options, metrics=metrics))
    return consumer
