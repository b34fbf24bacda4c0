"""The databases that tests get."""

from __future__ import annotations

from tests.postgres import execute


def test_a_database_of_ones_own_is_empty_and_in_unicode(postgres: str) -> None:
    [schemas, encoding] = execute(
        postgres,
        "select nspname from pg_namespace where nspname !~ '^(pg_|information_schema|public)'",
        "show server_encoding",
    )

    assert (schemas, encoding) == ([], [("UTF8",)])


def test_two_databases_share_nothing(postgres: str, postgres_server: str) -> None:
    execute(postgres, "create table only_here ()")

    assert execute(postgres_server, "select to_regclass('only_here')") == [[(None,)]]
