"""OpenAPI of the public and the management port, from the tables of responses."""
# ruff: noqa: INP001 - a script next to its pages, not a package

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from bridge.ingress.challenges import METHODS
from bridge.ingress.responses import ROUTE
from bridge.proof import scheme, timestamps
from bridge.response_codes import PARKED, REFUSED, RETRY_AFTER_S, STATUS, UNAVAILABLE
from bridge.settings import HttpSettings, Management
from docs.body_schema import body_schemas
from docs.examples import examples

Document = dict[str, Any]

REFERENCE = "#/components/schemas/"
_META: Document = {
    "title": "drx-bridge",
    "version": version("drx-bridge"),
    "description": "Signed webhooks in, Kafka records out. Signatures are those of Standard Webhooks 1.0.0.\n\n"
    "The body schemas describe what native DRx sends. The bridge is lenient where no content is lost: an unknown "
    "member is kept in `extensions`, a value outside an enum becomes `UNKNOWN`, and the original is kept. Any other "
    "mismatch is parked, never refused. `x-phi` is the class of health information: D identifies a person, L is about "
    "one.",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}

# Codes of a request that has no body, and whose method only a handshake makes allowed.
_OF_HANDSHAKES = ("malformed_http", "header_duplicated", "signature_mismatch", "method_not_allowed", "rate_limited")
# Value of a handshake, as `bridge/ingress/challenges.py` accepts it.
_VALUE: Document = {"type": "string", "pattern": "^[ -~]{1,512}$"}
_PLAIN: Document = {"text/plain": {"schema": {"type": "string"}}}
# By the kind of handshake: operation, summary, parameter and response.
_HANDSHAKES: Mapping[str, tuple[str, str, Document, Document]] = {
    "query": (
        "echo",
        "Register the endpoint by GET, as Redox and Meta do",
        {
            "name": "handshake",
            "in": "query",
            "required": True,
            "description": "The parameter that `CHALLENGE=query:NAME` of the source names, and the one with its secret "
            "if `CHALLENGE_TOKEN=member:NAME` names one.",
            "schema": {"type": "object", "additionalProperties": _VALUE},
        },
        {"description": "The value of the parameter.", "content": _PLAIN},
    ),
    "cloudevents": (
        "permit",
        "Register the endpoint by OPTIONS, as CloudEvents and Azure Event Grid do",
        {"name": "WebHook-Request-Origin", "in": "header", "required": True, "schema": _VALUE},
        {
            "description": "The sender may send.",
            "headers": {
                "WebHook-Allowed-Origin": {"description": "The value of the request.", "schema": _VALUE},
                "WebHook-Allowed-Rate": {
                    "description": "Deliveries a minute, `*` for any.",
                    "schema": {"type": "string", "pattern": r"^(\*|[1-9][0-9]*)$"},
                },
                "Allow": {"schema": {"const": "POST"}},
            },
            "content": _PLAIN,
        },
    ),
}


def openapi() -> Document:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": _META,
        "servers": [_server("public port", HttpSettings().port)],
        "paths": {
            ROUTE: {
                "post": _delivery(),
                **{method.lower(): _handshake(*_HANDSHAKES[kind]) for kind, method in METHODS.items()},
            },
            **{path: _probe(*said) for path, said in _probes().items()},
        },
        "components": {"schemas": {**_answers(), **body_schemas()}},
    }


def _server(text: str, port: int) -> Document:
    variables = {"host": {"default": "localhost"}, "port": {"default": str(port)}}
    return {"url": "http://{host}:{port}", "description": f"The {text}.", "variables": variables}


def _delivery() -> Document:
    written = _answer(
        "Every event of the delivery is in Kafka, on all in-sync replicas; a `duplicate` already was. `ignored`: the "
        "operator does not want this type, or the batch is empty; it is not stored.",
        *("Accepted", "Duplicate", "Ignored", "Handshake"),
    )
    written["description"] += " A registration handshake that `CHALLENGE` of the source names gets its value back."
    written["content"] |= _PLAIN
    kept = _answer(
        "`spooled`: durable on the bridge's disk; it will be delivered to Kafka. `parked`: genuine and durable, but "
        "not a valid event; it is kept byte for byte. Do not retry either. A corrected body of a parked delivery is "
        "accepted under the same id.",
        *("Spooled", "Parked"),
    )
    again = f"Nothing is durable yet. Send the same delivery again after `Retry-After`. Codes:{_codes(UNAVAILABLE)}"
    return {
        "summary": "Deliver one event",
        "operationId": "deliver",
        "parameters": _parameters(),
        "requestBody": {
            "required": True,
            "description": f"At most {HttpSettings().body_max_bytes} bytes unless configured otherwise.",
            "content": {"application/json": {"schema": {"$ref": f"{REFERENCE}Event"}, "examples": _examples()}},
        },
        "responses": {
            str(STATUS["accepted"]): written,
            str(STATUS["parked"]): kept,
            **_refusals(),
            "500": _answer("A bug in the bridge before anything was durable. Send the delivery again.", "Unavailable"),
            str(STATUS["unavailable"]): {
                **_answer(again, "Unavailable"),
                "headers": {"Retry-After": _wait(RETRY_AFTER_S[0])},
            },
        },
    }


def _handshake(operation: str, summary: str, parameter: Document, response: Document) -> Document:
    """Return the operation of a handshake without a body."""
    return {
        "summary": summary,
        "description": "Only if the source is configured for it; see docs/vendors.md. Nothing is stored.",
        "operationId": operation,
        "parameters": [_parameters()[0], parameter],
        "responses": {str(STATUS["challenged"]): response, **_refusals(_OF_HANDSHAKES)},
    }


def _examples() -> Document:
    return {kind: {"value": example.body} for kind, example in examples().items()}


def _parameters() -> list[Document]:
    def header(name: str, text: str, pattern: str = "", *, required: bool = True) -> Document:
        schema = {"type": "string", **({"pattern": f"^{pattern}$"} if pattern else {})}
        return {"name": name, "in": "header", "required": required, "description": text, "schema": schema}

    an_id = "The same on every attempt; no `.` followed by 1 to 12 digits and another `.` or the end."
    return [
        {
            "name": "source",
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "description": "Name of the source.",
        },
        header("webhook-id", an_id, scheme.ID.pattern.decode()),
        header("webhook-timestamp", "Unix seconds of this attempt.", timestamps.TIMESTAMP.pattern.decode()),
        header(
            "webhook-signature",
            "`v1,<base64>` (HMAC-SHA256) or `v1a,<base64>` (ed25519); several are separated by a space.",
        ),
        header("traceparent", "W3C Trace Context; copied to the records.", required=False),
    ]


def _refusals(codes: Iterable[str] = REFUSED) -> Document:
    by_status: dict[int, dict[str, str]] = {}
    for code in codes:
        refusal = REFUSED[code]
        by_status.setdefault(refusal.status, {})[code] = refusal.meaning
    answers = {
        str(status): _answer(f"Refused before anything was parsed. Codes:{_codes(meanings)}", "Refused")
        for status, meanings in sorted(by_status.items())
    }
    answers[str(REFUSED["rate_limited"].status)]["headers"] = {"Retry-After": _wait(1)}
    return answers


def _wait(least_s: int) -> Document:
    return {"description": "Seconds.", "schema": {"type": "integer", "minimum": least_s}}


def _codes(meanings: Mapping[str, str]) -> str:
    return "\n\n" + "\n".join(f"- `{code}`: {meaning}" for code, meaning in meanings.items())


def _answer(text: str, *schemas: str) -> Document:
    references = [{"$ref": REFERENCE + each} for each in schemas]
    schema: Document = references[0] if len(references) == 1 else {"anyOf": references}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _answers() -> Document:
    def body(outcome: str, **others: Document) -> Document:
        return {
            "type": "object",
            "required": ["outcome", *others],
            "properties": {"outcome": {"const": outcome}, **others},
        }

    webhook_id = {"type": "string", "description": "The verified webhook-id."}
    reason = {"type": "string", "enum": list(PARKED), "description": _codes(PARKED).strip()}
    parked = body("parked", id=webhook_id, reason=reason)
    says = "Path of the field at fault, if known; `*` for any index. Never a value."
    parked["properties"]["field"] = {"type": "string", "description": says, "examples": ["/data/prescription_id"]}
    result = {"type": "string", "description": "`ok`, `degraded`, or the fault."}
    checks = {"type": "object", "additionalProperties": result}
    return {
        "Accepted": body("accepted", id=webhook_id),
        "Duplicate": body("duplicate", id=webhook_id),
        "Ignored": body("ignored", id=webhook_id),
        "Handshake": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": _VALUE,
            "examples": [{"validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}],
        },
        "Spooled": body("spooled", id=webhook_id),
        "Parked": parked,
        "Refused": body("refused", code={"type": "string", "enum": list(REFUSED)}),
        "Unavailable": body("unavailable", code={"type": "string", "enum": list(UNAVAILABLE)}),
        "Alive": {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}},
        "Readiness": {
            "type": "object",
            "required": ["status", "checks"],
            "properties": {"status": {"enum": ["ok", "degraded", "unavailable"]}, "checks": checks},
        },
    }


def _probes() -> dict[str, tuple[str, Document]]:
    ready = "An event can be made durable now, if only on disk (`degraded`), and the process is not shutting down."
    text = {"schema": {"type": "string"}}
    metrics = {"description": "The metrics.", "content": {"text/plain": text, "application/openmetrics-text": text}}
    return {
        "/livez": ("Is the process alive", {"200": _answer("The process is alive; Kafka is not checked.", "Alive")}),
        "/readyz": (
            "May it get traffic",
            {"200": _answer(ready, "Readiness"), "503": _answer("Not ready; the checks show why.", "Readiness")},
        ),
        "/metrics": ("Metrics for Prometheus", {"200": metrics}),
    }


def _probe(summary: str, responses: Document) -> Document:
    operation = summary.lower().replace(",", "").replace(" ", "_")
    get = {"summary": summary, "operationId": operation, "responses": responses}
    return {"servers": [_server("management port", Management().port)], "get": get}
