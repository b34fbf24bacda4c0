"""Report what is overdue by the database's views."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from consumers.read_model.metrics import ReadModelMetrics
from consumers.read_model.options import ReadModelOptions


class Timers:
    """A job: writes the settings to the database, and what is overdue to the metrics.

    It stores nothing else: `overdue` and `source_silence` are views of the facts and the current time.
    """

    def __init__(
        self, options: ReadModelOptions, *, metrics: ReadModelMetrics, now: Callable[[], float] = time.time
    ) -> None:
        """Keep the settings; `now` is the time of day in Unix seconds."""
        self._options = options
        self._metrics = metrics
        self._now = now
        schema = options.tables_schema
        self._set = f"""
            insert into "{schema}".timer as t (kind, after, gaps)
            select * from unnest($1::text[], $2::interval[], $3::float8[])
            on conflict (kind) do update set after = excluded.after, gaps = excluded.gaps
            where (t.after, t.gaps) is distinct from (excluded.after, excluded.gaps)
            """  # noqa: S608 -- a checked name
        self._overdue = f'select kind, waiting from "{schema}".overdue_count'  # noqa: S608 -- as above
        self._silent = f'select source, silent from "{schema}".source_silence'  # noqa: S608 -- as above

    async def __call__(self, connection: Any) -> None:
        """Run once."""
        options = self._options
        settings: list[tuple[str, timedelta, float | None]] = [
            ("cancel_unanswered", timedelta(hours=options.cancel_unanswered_h), None),
            ("request_open", timedelta(hours=options.request_open_h), None),
            ("source_silent", timedelta(seconds=options.silence_min_s), options.silence_gaps),
            ("unconfirmed", timedelta(hours=options.unconfirmed_h), None),
        ]
        await connection.execute(self._set, *zip(*settings, strict=True))
        for kind, waiting in await connection.fetch(self._overdue):
            self._metrics.overdue.labels(kind=kind).set(waiting)
        silence = await connection.fetch(self._silent)
        self._metrics.source_silent.clear()
        for source, silent in silence:
            self._metrics.source_silent.labels(source=source).set(silent)
        self._metrics.timers_checked.set(self._now())
