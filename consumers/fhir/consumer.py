"""Build the consumer `fhir`, an entry point of the group `drx_bridge.consumers`."""

from collections.abc import Iterable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any

import orjson

from bridge.contract.events import OTHER_REPORTED
from bridge.errors import PermanentError
from bridge.event import Event
from consumers.api import Consumer, Context, Lanes, Setup, Tables
from consumers.fhir.elements import Element, Naming, demand_text, patient_identifier
from consumers.fhir.mapping import Resource, provenance, resources, targets, withdrawn
from consumers.fhir.options import NAME, FhirOptions
from consumers.fhir.sink import EventOrigin, FhirMetrics, FhirServer, open_server
from consumers.lifecycle.facts import Document, blank
from consumers.lifecycle.machines import apply
from consumers.lifecycle.whole import note_whole, shared
from consumers.options import read_options, server_of
from consumers.postgres.text import stored_text

MIGRATIONS = files("consumers.fhir") / "migrations"
# Requests of one event: find the patient, read the resources, write, and read and write again after a conflict. The
# margin in seconds lets a request time out before its handler does, so that the server counts as unavailable.
_REQUESTS, _MARGIN_S = 5, 5.0
# Event types without a FHIR resource.
_NOT_ORDERS = frozenset({OTHER_REPORTED, "prescriber.enrollment_changed", "system.ping"})


class ResourceWriter:
    """The handler: stores facts and writes resources in the transaction that settles an event.

    The written resources do not depend on the order of events. After a crash before the commit the event is repeated,
    and finds everything written.
    """

    def __init__(self, options: FhirOptions) -> None:
        schema = options.schema_name(NAME)
        self._options = options
        self._load = f'select document::text from "{schema}".prescription where key = $1 for update'  # noqa: S608 - a checked name
        self._written = f'select id, type, server_id from "{schema}".resource where key = $1'  # noqa: S608 - as above
        self._store = f"""
            insert into "{schema}".prescription as p (key, document) values ($1, $2::jsonb)
            on conflict (key) do update set document = excluded.document, updated_at = clock_timestamp()
            """  # noqa: S608 - as above
        self._keep = f"""
            insert into "{schema}".resource (key, id, type, server_id)
            select $1, * from unnest($2::text[], $3::text[], $4::text[])
            on conflict (id) do update set server_id = excluded.server_id
            """  # noqa: S608 - as above

    async def __call__(self, event: Event, context: Context) -> None:
        """Apply one event; `PermanentError` if FHIR cannot hold a value; else raises like `FhirServer.write`."""
        options = self._options
        imported = context.origin == "import" and options.imports == "skip"
        if event.type in _NOT_ORDERS or imported or not options.wants_account(event):
            return
        if stored_text(event.key) != event.key:
            raise PermanentError("bad_key")
        demand_text((event.id, event.source, [value for name, value in event.value.items() if name != "extensions"]))
        connection: Any = context.connection
        naming = options.naming(str(event.value["account_id"]))
        found = await connection.fetch(self._load, event.key)
        document: Document = orjson.loads(found[0][0]) if found else blank()
        apply(document, event, note=note_whole)
        patient = await self._patient(document, context, naming)
        derived = partial(resources, event.key, naming=naming, patient=patient, complete=options.complete_after_refills)
        wanted, before = derived(document), derived(orjson.loads(found[0][0])) if found else []
        changed = targets(event, before, wanted)
        await connection.execute(self._store, event.key, orjson.dumps(document).decode())
        if wanted == before and not changed:
            return
        rows = await connection.fetch(self._written, event.key)
        known = {row[0]: row[2] for row in rows}
        server: FhirServer = context.resource
        written = await server.write(
            [*wanted, *_gone({row[0]: row[1] for row in rows}, {each.id for each in wanted})],
            known,
            source=naming.system(f"source:{event.source}"),
            origin=EventOrigin(provenance(event, naming), changed) if options.provenance else None,
        )
        new = [
            (each.id, each.type, written[each.id])
            for each in wanted
            if each.id in written and known.get(each.id) != written[each.id]
        ]
        if new:
            await connection.execute(self._keep, event.key, *zip(*new, strict=True))

    async def _patient(self, document: Document, context: Context, naming: Naming) -> Element | None:
        """Return a reference to the server's Patient if `references` is `search`."""
        patient = shared(document, "patient")
        if self._options.references == "logical" or patient is None:
            return None
        identifier = patient_identifier(patient, naming)
        server: FhirServer = context.resource
        found = await server.patient(identifier, born=patient.get("date_of_birth")) if identifier else None
        if found is None and self._options.unmatched == "park":
            raise PermanentError("no_patient")
        return found


def open_fhir(setup: Setup) -> Consumer:
    """Build the consumer from its settings."""
    options = read_options(FhirOptions, NAME, setup.options)
    group, schema = options.group(NAME), options.schema_name(NAME)
    what = "orders, dispenses, requests and alerts with the patient's name and identifier"
    consumer = Consumer(
        NAME,
        options.topics,
        mode=Lanes(options.lanes, transactional=True),
        handler_timeout_s=_REQUESTS * options.timeout_s + _MARGIN_S,
        group=group,
        tables=Tables(migrations=MIGRATIONS, schema=schema),
        around=partial(open_server, options, FhirMetrics(setup.registry, service=group)),
        ping=FhirServer.ping,
        lacks=FhirServer.lacks,
        discloses=[
            f"{what}: written to {server_of(options.base_url)}",
            f"the facts of each prescription, in clear: tables of the schema {schema} of this database",
        ],
    )
    consumer.handler(ResourceWriter(options))
    return consumer


def _gone(types: Mapping[str, str], wanted: Iterable[str]) -> list[Resource]:
    """Return the withdrawals of written resources that the facts no longer support."""
    left = [withdrawn(types[each], each) for each in sorted(set(types) - set(wanted))]
    return [each for each in left if each is not None]
