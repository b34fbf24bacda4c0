"""The previous release works on the tables of this one: docs/operations.md, "Upgrade and roll back"."""

import re

import pytest

from consumers.postgres.migrate import LEDGER, Migration, read_migrations
from consumers.read_model.consumer import MIGRATIONS

ALL = [migration for directory in (LEDGER.migrations, MIGRATIONS) for migration in read_migrations(directory)]
# What another release's statements may name. An index is no one's.
_TAKES_AWAY = re.compile(
    r"\b(drop\s+(table|view|column|type|schema|function)|rename|alter\s+column|set\s+not\s+null|delete\s+from|truncate"
    r"|revoke(?! [^;]* from public;))\b"
)


@pytest.mark.parametrize("migration", ALL, ids=[migration.name for migration in ALL])
def test_a_migration_takes_nothing_away(migration: Migration) -> None:
    assert _TAKES_AWAY.findall(re.sub(r"--.*", "", migration.sql.lower())) == []
