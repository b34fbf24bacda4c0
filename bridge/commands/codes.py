"""What each code of an answer means: for `verify`, `log` and the page of the HTTP interface."""

from collections.abc import Mapping

# What each refusal means to the sender that gets it.
REFUSALS: Mapping[str, str] = {
    "malformed_http": "the bytes are not a valid HTTP request",
    "signature_missing": "the signature or secret is missing, or the id or timestamp that it covers",
    "header_duplicated": "one of these headers, or the token in the URL, is repeated",
    "id_malformed": "the id is not 1 to 200 printable ASCII characters without space",
    "timestamp_malformed": "the timestamp is not 1 to 12 digits",
    "signature_malformed": "the signature or secret is not of its form, too long, or has too many elements",
    "signature_mismatch": "nothing is a signature of these bytes with a valid secret, or the text is ambiguous, or the "
    "secret or network is another",
    "timestamp_stale": "genuine, but the timestamp is older than the tolerance",
    "timestamp_future": "genuine, but the timestamp is ahead of ours by more than the tolerance",
    "not_found": "there is nothing at this path",
    "unknown_source": "no source has this name",
    "method_not_allowed": "only POST is allowed",
    "body_too_large": "the body is over the limit",
    "content_type": "the content type is not application/json (with or without charset=utf-8)",
    "content_encoding": "the body is compressed; the signed bytes must be the received bytes",
    "rate_limited": "the source or the address sends too much; send it again after `Retry-After`",
}
# Why a delivery was parked.
PARKED: Mapping[str, str] = {
    "malformed_json": "not one JSON object in strict form (a duplicate key, for example)",
    "unknown_type": "the type is no word of its form, or the body names neither a prescription nor an account",
    "environment_mismatch": "not the environment of the source",
    "unusable": "a required field is missing, a field has the wrong type, or there is no usable key",
    "id_conflict": "the id was used before with another body; the first one stands",
    "unexpected": "a bug in the bridge",
}
# Why nothing could be made durable; the sender keeps the delivery and retries.
UNAVAILABLE: Mapping[str, str] = {
    "admission_full": "too many deliveries are in progress",
    "deadline": "neither Kafka nor the disk confirmed in time; the record may still appear",
    "kafka_unavailable": "no broker can be written to, and the spool accepts nothing",
    "not_authorized": "the brokers refuse our user",
    "outcome_unknown": "the connection ended during a write; the record may have been written",
    "queue_full": "too many records wait for Kafka or the disk",
    "record_refused": "Kafka refuses this record",
    "record_too_large": "the record is larger than the topic accepts",
    "schema_ids_unknown": "no schema registry has been reached since the start",
    "shutting_down": "the process is shutting down",
    "spool_full": "earlier events are spooled, and there is no room for more",
    "spool_unavailable": "earlier events are spooled, and the disk cannot be written to now",
    "topic_missing": "the topic does not exist",
    "unexpected": "a bug in the bridge",
}
