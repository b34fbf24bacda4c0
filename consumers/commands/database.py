"""The database as operator commands use it: one connection, and its failures as a line that says what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge.errors import ConfigError, PermanentError, TransientError
from consumers.commands.installed import Chosen
from consumers.postgres.pool import Database, open_database

_ADVICE = {
    "no_schema": "run `drx-consumer init`",
    "no_table": "run `drx-consumer init`",
    "not_permitted": "the user of CONSUMER_POSTGRES__DSN may not do this",
    "authentication_failed": "user or password of CONSUMER_POSTGRES__DSN",
    "no_database": "there is no such database; see CONSUMER_POSTGRES__DSN",
}


@asynccontextmanager
async def open_for_operator(chosen: Chosen, command: str) -> AsyncIterator[Database]:
    """Open the database of the settings for `command`.

    Raises:
        ConfigError: It is away, or refuses.
    """
    name = f"drx-consumer {command} {chosen.consumer.name}"
    try:
        async with open_database(chosen.settings.postgres.address(), size=1, application_name=name) as database:
            yield database
    except (TransientError, PermanentError) as exc:
        advice = _ADVICE.get(exc.code)
        msg = f"PostgreSQL: {exc.code}" + (f" → {advice}" if advice else "")
        raise ConfigError(msg) from None
