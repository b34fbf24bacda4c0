"""Every response of the public port, in one table: metrics, logs, commands, OpenAPI and docs read from it."""

from collections.abc import Mapping
from typing import NamedTuple

# HTTP status by outcome (docs/contract.md §2); a refusal's status depends on its code.
STATUS: Mapping[str, int] = {
    "accepted": 200,
    "duplicate": 200,
    "ignored": 200,
    "challenged": 200,
    "spooled": 202,
    "parked": 202,
    "unavailable": 503,
}
# Seconds for `Retry-After`, random within the range so that rejected senders do not all return at once.
RETRY_AFTER_S = (1, 5)
# When a sender should retry, by status; other statuses must not be retried.
AGAIN: Mapping[int, str] = {
    401: "once the secret, the clock or the signed bytes are right",
    429: "after `Retry-After`",
    503: "after `Retry-After`",
}


class Refusal(NamedTuple):
    """A refusal of a delivery before its body is parsed."""

    status: int
    meaning: str
    proof: str = ""  # label `reason` of `drxbridge_signature_failures_total`; empty if the signature was not the cause


REFUSED: Mapping[str, Refusal] = {
    "malformed_http": Refusal(400, "the bytes are not a valid HTTP request"),
    "signature_missing": Refusal(
        401, "the signature or secret is missing, or the id or timestamp that it covers", "missing"
    ),
    "header_duplicated": Refusal(401, "a header of the signature, or the token in the URL, is repeated", "format"),
    "id_malformed": Refusal(401, "the id is not 1 to 200 printable ASCII characters without space", "format"),
    "timestamp_malformed": Refusal(
        401, "the timestamp is not 1 to 12 digits, or does not have the configured format", "format"
    ),
    "signature_malformed": Refusal(
        401, "the signature or secret has the wrong format, is too long, or has too many elements", "format"
    ),
    "signature_mismatch": Refusal(
        401,
        "no valid secret gives this signature for these bytes, the signed text is ambiguous, or the secret or network "
        "is wrong",
        "mismatch",
    ),
    "timestamp_stale": Refusal(401, "genuine, but the timestamp is older than the tolerance", "stale"),
    "timestamp_future": Refusal(
        401, "genuine, but the timestamp is ahead of the bridge's clock by more than the tolerance", "future"
    ),
    "not_found": Refusal(404, "this path does not exist"),
    "unknown_source": Refusal(404, "no source has this name"),
    "method_not_allowed": Refusal(405, "only POST is allowed"),
    "body_too_large": Refusal(413, "the body is over the limit"),
    "content_type": Refusal(
        415, "the content type is neither application/json (with or without charset=utf-8) nor one of the source's"
    ),
    "content_encoding": Refusal(415, "the body is compressed; the signed bytes must be the received bytes"),
    "rate_limited": Refusal(429, "the source or the address sends too much; retry after `Retry-After`"),
}
# Metric label of a signature mismatch when the source has no valid key.
UNKNOWN_KEY = "unknown_key"
# Reasons to park a verified delivery whole instead of mapping it to events.
PARKED: Mapping[str, str] = {
    "malformed_json": "not a single JSON object in strict form (for example, a key is repeated)",
    "malformed_form": "not a URL-encoded form with the field that the source is configured for, or a field is repeated",
    "malformed_xml": "not a single XML document in UTF-8 or UTF-16, or it has a document type",
    "unknown_type": "the type does not look like a type name, or the body names neither a prescription nor an account",
    "environment_mismatch": "the environment is missing, or is not that of the source",
    "unusable": "a required field is missing, a field has the wrong type, or the key is missing or unusable",
    "id_conflict": "the id was used before with another body; the first one is kept",
    "unexpected": "a bug in the bridge",
}
# Reasons why a delivery could not be made durable; the sender keeps it and retries.
UNAVAILABLE: Mapping[str, str] = {
    "admission_full": "too many deliveries are in progress",
    "deadline": "neither Kafka nor the disk confirmed in time; the record may still appear",
    "kafka_unavailable": "no broker accepts writes, and the spool accepts nothing",
    "not_authorized": "the brokers refuse the bridge's user",
    "outcome_unknown": "the connection ended during a write; the record may have been written",
    "queue_full": "too many records wait for Kafka or the disk",
    "record_refused": "Kafka refuses this record",
    "record_too_large": "the record is larger than the topic accepts",
    "schema_ids_unknown": "no schema registry has been reached since the start",
    "shutting_down": "the process is shutting down",
    "spool_full": "earlier events are spooled, and the spool is full",
    "spool_unavailable": "earlier events are spooled, and the disk cannot be written to now",
    "topic_missing": "the topic does not exist",
    "unexpected": "a bug in the bridge",
}


def proof_failures() -> tuple[str, ...]:
    """Return every value of the label `reason` for failed proofs of origin."""
    return (*dict.fromkeys(each.proof for each in REFUSED.values() if each.proof), UNKNOWN_KEY)


def meaning(outcome: str, code: str) -> str:
    """Return the meaning of a code of an outcome as a sentence; empty if the code is unknown."""
    if outcome == "refused":
        return REFUSED[code].meaning if code in REFUSED else ""
    return {"parked": PARKED, "unavailable": UNAVAILABLE}.get(outcome, {}).get(code, "")
