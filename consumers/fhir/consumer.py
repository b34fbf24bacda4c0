"""Builds the consumer `fhir`, an entry point of the group `drx_bridge.consumers`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any

import orjson

from bridge.errors import PermanentError
from bridge.event import Event
from consumers.api import Consumer, Context, Lanes, Setup, Tables
from consumers.fhir.elements import Element, demand_text, patient_identifier
from consumers.fhir.mapping import Resource, provenance, resources, withdrawn
from consumers.fhir.metrics import FhirMetrics
from consumers.fhir.options import NAME, FhirOptions
from consumers.fhir.sink import FhirServer, Written, open_server
from consumers.lifecycle.facts import Document, blank
from consumers.lifecycle.machines import apply
from consumers.lifecycle.whole import note_whole, shared
from consumers.options import read_options, server_of
from consumers.postgres.text import stored_text

MIGRATIONS = files("consumers.fhir") / "migrations"
# A write looks, writes, and looks and writes again after a conflict; the margin lets a request end first and say that
# the server is away.
_REQUESTS, _MARGIN_S = 4, 5.0
_NOT_ORDERS = frozenset({"prescriber.enrollment_changed", "system.ping"})


class Writer:
    """The handler: the facts of a prescription, and what is written of them, in the transaction that settles an event.

    What is written never depends on the order in which events arrive. A crash before the transaction is committed
    repeats an event, which then finds everything written.
    """

    def __init__(self, options: FhirOptions) -> None:
        schema = options.schema_name
        self._options = options
        self._naming = options.naming
        self._load = f'select document::text from "{schema}".prescription where key = $1 for update'  # noqa: S608 - a checked name
        self._written = f'select id, type, version, owned_sha256, others::text from "{schema}".resource where key = $1'  # noqa: S608 - as above
        self._store = f"""
            insert into "{schema}".prescription as p (key, document) values ($1, $2::jsonb)
            on conflict (key) do update set document = excluded.document, updated_at = clock_timestamp()
            """  # noqa: S608 - as above
        self._keep = f"""
            insert into "{schema}".resource as r (type, id, key, version, owned_sha256, others)
            select type, id, $1, version, owned_sha256, others::jsonb
            from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
              as u (type, id, version, owned_sha256, others)
            on conflict (type, id) do update set version = excluded.version, owned_sha256 = excluded.owned_sha256,
              others = excluded.others, written_at = clock_timestamp()
            """  # noqa: S608 - as above

    async def __call__(self, event: Event, context: Context) -> None:
        """Apply one event.

        Raises:
            TransientError: See `FhirServer.write`.
            PermanentError: A value has no place in FHIR, nobody finds the patient, or the server does not take it.
        """
        if event.type in _NOT_ORDERS or (context.origin == "import" and self._options.imports == "skip"):
            return
        if stored_text(event.key) != event.key:
            raise PermanentError("bad_key")
        demand_text((event.id, event.source, [said for name, said in event.value.items() if name != "extensions"]))
        connection: Any = context.connection
        server: FhirServer = context.resource
        found = await connection.fetch(self._load, event.key)
        document: Document = orjson.loads(found[0][0]) if found else blank()
        apply(document, event, note=note_whole)
        rows = await connection.fetch(self._written, event.key)
        known = {row[0]: Written(row[2], row[3], orjson.loads(row[4])) for row in rows}
        wanted = resources(
            event.key,
            document,
            self._naming,
            patient=await self._patient(document, server),
            complete=self._options.complete_after_refills,
        )
        types = {each.id: each.type for each in wanted}
        types |= {row[0]: row[1] for row in rows}
        wanted += _gone(types, {each.id for each in wanted})
        origin = provenance(event, document, self._naming) if self._options.provenance else None
        wanted += [] if origin is None else [origin]
        written = await server.write(wanted, known, source=self._naming.system(f"source:{event.source}"))
        await connection.execute(self._store, event.key, orjson.dumps(document).decode())
        if written:
            await connection.execute(self._keep, event.key, *_columns(types, written))

    async def _patient(self, document: Document, server: FhirServer) -> Element | None:
        """Return a reference to the server's own patient, where one is to be searched for."""
        if self._options.references == "logical":
            return None
        identifier = patient_identifier(shared(document, "patient"), self._naming)
        found = await server.patient(identifier) if identifier else None
        if found is None and self._options.unmatched == "park" and shared(document, "patient") is not None:
            raise PermanentError("no_patient")
        return found


def open_fhir(setup: Setup) -> Consumer:
    """Build it from its settings.

    Raises:
        ConfigError: A setting cannot be used.
    """
    options = read_options(FhirOptions, NAME, setup.options)
    group = options.group(NAME)
    consumer = Consumer(
        NAME,
        options.topics,
        mode=Lanes(options.lanes, transactional=True),
        # A type that only a newer release knows waits, with all that follows it, instead of leaving a hole for ever.
        unknown="park",
        handler_timeout_s=_REQUESTS * options.timeout_s + _MARGIN_S,
        group=group,
        tables=Tables(migrations=MIGRATIONS, schema=options.schema_name),
        around=partial(open_server, options, FhirMetrics(setup.registry, service=group)),
        ping=FhirServer.ping,
        discloses=disclosed(options),
    )
    consumer.handler(Writer(options))
    return consumer


def disclosed(options: FhirOptions) -> list[str]:
    """Say what goes where."""
    what = "orders, dispenses, requests and alerts with the patient's name and identifier"
    return [
        f"{what}: written to {server_of(options.base_url)}",
        f"what is known of each prescription, in clear: tables of the schema {options.schema_name} of this database",
    ]


def _gone(types: Mapping[str, str], wanted: Iterable[str]) -> list[Resource]:
    """Return what is left to say in resources that were written and do not follow from the facts any more."""
    left = [withdrawn(types[each], each) for each in sorted(set(types) - set(wanted))]
    return [each for each in left if each is not None]


def _columns(types: Mapping[str, str], written: Mapping[str, Written]) -> tuple[list[str], ...]:
    ids = sorted(written)
    return (
        [types[each] for each in ids],
        ids,
        [written[each].version for each in ids],
        [written[each].sha256 for each in ids],
        [orjson.dumps(written[each].others).decode() for each in ids],
    )
