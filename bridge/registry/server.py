"""The embedded registry's REST API, as clients of Confluent's registry expect it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bridge.registry import server_wire as wire
from bridge.registry.store import Store
from bridge.registry.store_model import Registration, RegistryFaultError

# Confluent's own bound on the text of a schema; ours are under 20 KiB.
BODY_MAX_BYTES: Final = 1_048_576

STORE: Final = web.AppKey("store", Store)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def registry_app(store: Store) -> web.Application:
    """Serve a store; whoever runs the application owns its port and its end."""
    app = web.Application(middlewares=[faults_as_json], client_max_size=BODY_MAX_BYTES)
    app[STORE] = store
    app.add_routes(
        [
            web.get("/", root),
            web.get("/subjects", subjects),
            web.post("/subjects/{subject}", look_up),
            web.get("/subjects/{subject}/versions", versions),
            web.post("/subjects/{subject}/versions", register),
            web.get("/subjects/{subject}/versions/{version}", version),
            web.get("/subjects/{subject}/versions/{version}/schema", version_schema),
            web.get("/subjects/{subject}/versions/{version}/referencedby", none),
            web.get("/schemas/types", schema_types),
            web.get("/schemas/ids/{id}", by_id),
            web.get("/schemas/ids/{id}/schema", by_id_schema),
            web.get("/schemas/ids/{id}/subjects", by_id_subjects),
            web.get("/schemas/ids/{id}/versions", by_id_versions),
            web.get("/schemas/guids/{guid}", by_guid),
            web.post("/compatibility/subjects/{subject}/versions", compatible_with_all),
            web.post("/compatibility/subjects/{subject}/versions/{version}", compatible_with_one),
            web.get("/config", level),
            web.put("/config", set_level),
            web.get("/config/{subject}", level),
            web.put("/config/{subject}", set_level),
            web.get("/mode", mode),
            web.get("/mode/{subject}", mode),
            web.get("/contexts", contexts),
        ]
    )
    return app


@web.middleware
async def faults_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure as `{"error_code", "message"}`: clients stop reading when they meet another shape.

    An unknown path is a 404 and never a 405 or 501, which would stop Confluent's clients at `/associations`.
    """
    try:
        return await handler(request)
    except RegistryFaultError as fault:
        return wire.failure(fault.error_code, fault.message)
    except web.HTTPException as exc:
        headers = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else {}
        return wire.failure(exc.status, f"HTTP {exc.status} {HTTPStatus(exc.status).phrase}", headers=headers)
    except OSError:
        return wire.failure(50001, "The registry could not write its file; nothing was registered.")


async def root(request: web.Request) -> web.Response:
    """Answer a probe, as Confluent's registry does."""
    del request
    return wire.answer({})


async def none(request: web.Request) -> web.Response:
    """Name the schemas that refer to this one: never any, since ours are self-contained and references are refused."""
    request.app[STORE].version(request.match_info["subject"], wire.version(request))
    return wire.answer([])


async def subjects(request: web.Request) -> web.Response:
    """List subjects; `deleted` changes nothing, since nothing is ever deleted."""
    # `:*:` is all contexts and `:.:` the default one; there is no other.
    prefix = request.query.get("subjectPrefix", "").removeprefix(":*:").removeprefix(":.:")
    return wire.page(request, [name for name in request.app[STORE].subjects() if name.startswith(prefix)])


async def versions(request: web.Request) -> web.Response:
    """List the version numbers of a subject."""
    found = request.app[STORE].versions(request.match_info["subject"])
    return wire.page(request, [registration.version for registration in found])


async def version(request: web.Request) -> web.Response:
    """Show one version of a subject."""
    return wire.answer(wire.row(request.app[STORE].version(request.match_info["subject"], wire.version(request))))


async def version_schema(request: web.Request) -> web.Response:
    """Show the bare schema of one version."""
    found = request.app[STORE].version(request.match_info["subject"], wire.version(request))
    return wire.schema_text(found.schema)


async def look_up(request: web.Request) -> web.Response:
    """Find the version of a subject that is this schema."""
    return wire.answer(
        wire.row(request.app[STORE].find(request.match_info["subject"], wire.posted_schema(await wire.body(request))))
    )


async def register(request: web.Request) -> web.Response:
    """Register a schema, or find it if it is there."""
    body = await wire.body(request)
    if body.get("id") not in (None, -1):
        raise RegistryFaultError(42205, "Subject is not in import mode; the registry chooses the id.")
    return wire.answer(wire.row(request.app[STORE].register(request.match_info["subject"], wire.posted_schema(body))))


async def schema_types(request: web.Request) -> web.Response:
    """List what kinds of schema are taken."""
    del request
    return wire.answer(["AVRO"])


async def by_id(request: web.Request) -> web.Response:
    """Show the schema of an id; a `subject` that does not hold it is let pass, as clients send what they guess."""
    store, schema_id = request.app[STORE], wire.schema_id(request)
    wanted = request.query.get("subject")
    holders = store.holders(schema_id)
    shown = next((holder for holder in holders if holder.subject == wanted), holders[0])
    return wire.answer({**wire.row(shown), "id": schema_id})


async def by_id_schema(request: web.Request) -> web.Response:
    """Show the bare schema of an id."""
    return wire.schema_text(request.app[STORE].by_id(wire.schema_id(request)).schema)


async def by_id_subjects(request: web.Request) -> web.Response:
    """List the subjects that hold an id."""
    return wire.page(request, [holder.subject for holder in request.app[STORE].holders(wire.schema_id(request))])


async def by_id_versions(request: web.Request) -> web.Response:
    """List the subjects that hold an id, with the version."""
    holders = request.app[STORE].holders(wire.schema_id(request))
    return wire.page(request, [{"subject": holder.subject, "version": holder.version} for holder in holders])


async def by_guid(request: web.Request) -> web.Response:
    """Show the schema of a GUID."""
    return wire.answer(wire.row(request.app[STORE].by_guid(request.match_info["guid"])))


async def compatible_with_all(request: web.Request) -> web.Response:
    """Say whether a schema may follow the versions of a subject, or the latest alone if its level is not transitive."""
    return await _compatible(request, request.app[STORE].reach(request.match_info["subject"]))


async def compatible_with_one(request: web.Request) -> web.Response:
    """Say whether a schema may follow one version; anything may follow the latest of a subject that is not there."""
    store, subject, number = request.app[STORE], request.match_info["subject"], wire.version(request)
    if number is None and subject not in store.subjects():
        return await _compatible(request, ())
    return await _compatible(request, [store.version(subject, number)])


async def level(request: web.Request) -> web.Response:
    """Show a compatibility level."""
    inherit = wire.flag(request, "defaultToGlobal")
    shown = request.app[STORE].level(request.match_info.get("subject"), inherit=inherit)
    return wire.answer({"compatibilityLevel": shown})


async def set_level(request: web.Request) -> web.Response:
    """Set a compatibility level."""
    body = await wire.body(request)
    wanted = body.get("compatibility")
    return wire.answer(
        {"compatibility": request.app[STORE].set_level(request.match_info.get("subject"), str(wanted or ""))}
    )


async def mode(request: web.Request) -> web.Response:
    """Show whether new schemas are taken; a subject has no mode of its own, so it is the same for each."""
    return wire.answer({"mode": "READONLY" if request.app[STORE].read_only else "READWRITE"})


async def contexts(request: web.Request) -> web.Response:
    """List contexts: only the default one."""
    return wire.page(request, ["."])


async def _compatible(request: web.Request, against: Sequence[Registration]) -> web.Response:
    text = wire.posted_schema(await wire.body(request))
    reasons = request.app[STORE].incompatibilities(request.match_info["subject"], text, against)
    shown = {"messages": reasons} if wire.flag(request, "verbose") else {}
    return wire.answer({"is_compatible": not reasons, **shown})
