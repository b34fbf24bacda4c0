"""The series of a healthy system, scraped about once a minute; a test changes those of its fault."""

from collections.abc import Mapping

PLACE = 'namespace="rx"'
INGRESS = f'{PLACE},job="ingress",instance="ingress-0"'
READER = f'{PLACE},job="read-model",instance="read-model-0"'
ARCHIVE = f'{PLACE},job="archive",instance="archive-0",service="archive"'
WORKFLOW = f'{PLACE},job="workflow",instance="workflow-0",service="workflow"'
CONSUMER = f'{READER},service="read_model"'
POSTS = f'drxbridge_http_requests_total{{{INGRESS},route="/webhooks/{{source}}",method="POST",code="",outcome='
DURATIONS = (
    f'drxbridge_http_request_duration_seconds_{{part}}{{{{{INGRESS},route="/webhooks/{{{{source}}}}",outcome="accepted"'
)
FRESHNESS = f'drxbridge_freshness_seconds_{{part}}{{{{{CONSUMER},segment="kafka_to_applied"'

Series = Mapping[str, str]


def flat(value: float, samples: int) -> str:
    return f"{value:g}+0x{samples - 1}"


def rising(step: float, samples: int, *, start: float = 0) -> str:
    return f"{start:g}{step:+g}x{samples - 1}"


def late_answers(le: str) -> str:
    return DURATIONS.format(part="bucket") + f',le="{le}"}}'


def ages(le: str) -> str:
    return FRESHNESS.format(part="bucket") + f',le="{le}"}}'


def healthy(samples: int, *, minutes: float = 1) -> dict[str, str]:
    """Name to values; samples are `minutes` apart, and time begins at zero."""
    each = 60 * minutes  # one delivery a second
    now = rising(each, samples)  # a moment that is always just now
    found = {
        f'{POSTS}"accepted"}}': rising(each, samples),
        f'{POSTS}"unavailable"}}': flat(0, samples),
        f'{POSTS}"refused"}}': flat(0, samples),
        DURATIONS.format(part="count") + "}": rising(each, samples),
        late_answers("0.25"): rising(each, samples),
        late_answers("2.0"): rising(each, samples),
        FRESHNESS.format(part="count") + "}": rising(each, samples),
        ages("5.0"): rising(each, samples),
        ages("60.0"): rising(each, samples),
        f'drxbridge_provider_clock_offset_seconds_count{{{INGRESS},source="drx"}}': rising(each, samples),
        f"drxbridge_http_inflight_requests{{{INGRESS}}}": flat(3, samples),
        f'drxbridge_heartbeat_last_seen_timestamp_seconds{{{INGRESS},service="ingress"}}': now,
        f'drxbridge_source_last_event_timestamp_seconds{{{INGRESS},source="drx"}}': now,
        f'drxbridge_secret_expiry_timestamp_seconds{{{INGRESS},source="drx"}}': " ".join(["Inf"] * samples),
        f"drxbridge_poll_age_seconds{{{CONSUMER}}}": flat(0.5, samples),
        f'drxbridge_consumer_lag_seconds{{{CONSUMER},topic="t",partition="0"}}': flat(0.1, samples),
        f'drxbridge_consumer_settled_offset{{{CONSUMER},topic="t",partition="0"}}': rising(each, samples),
        f'drxbridge_consumer_records_total{{{CONSUMER},topic="t",outcome="applied"}}': rising(each, samples),
        f"drxbridge_event_loop_lag_seconds_count{{{INGRESS}}}": rising(each, samples),
        f'drxbridge_event_loop_lag_seconds_bucket{{{INGRESS},le="1.0"}}': rising(each, samples),
        f"drxbridge_spool_available{{{INGRESS}}}": flat(1, samples),
        f"drxbridge_spool_capacity_bytes{{{INGRESS}}}": flat(1e9, samples),
        f"drxbridge_spool_free_bytes{{{INGRESS}}}": flat(9e8, samples),
        f"drxbridge_dedupe_ready{{{INGRESS}}}": flat(1, samples),
        f"drxbridge_dedupe_follow_lag_seconds{{{INGRESS}}}": flat(0.5, samples),
    }
    for name in (
        "spool_events",
        "spool_oldest_event_timestamp_seconds",
        "spool_blocked_partitions",
        "spool_corrupt_records_total",
        "spool_locked_records",
        "spool_unread_segments",
        "spool_set_aside_records",
    ):
        found[f"drxbridge_{name}{{{INGRESS}}}"] = flat(0, samples)
    for name in (
        "fence_rejected_total",
        "park_breaker_open",
        "parking_full_partitions",
        "parked_keys",
        "parked_oldest_age_seconds",
    ):
        found[f"drxbridge_{name}{{{CONSUMER}}}"] = flat(0, samples)
    for target in (INGRESS, READER):
        found[f"up{{{target}}}"] = found[f"drxbridge_build_info{{{target}}}"] = flat(1, samples)
    for name, labels, value in LABELLED:
        found[f"drxbridge_{name}{{{labels}}}"] = flat(value, samples)
    return found


LABELLED = (
    *(
        ("signature_failures_total", f'{INGRESS},source="drx",reason="{reason}"', 0)
        for reason in ("mismatch", "stale", "future")
    ),
    *(
        ("producer_state", f'{INGRESS},state="{state}"', state == "ready")
        for state in ("connecting", "ready", "stalled", "failed")
    ),
    ("id_conflicts_total", f'{INGRESS},source="drx"', 0),
    ("unrecognized_total", f'{INGRESS},source="drx",reason="unusable"', 0),
    ("produce_total", f'{INGRESS},topic="t",outcome="acknowledged"', 9),
    ("partition_count_mismatch", f'{INGRESS},topic="t"', 0),
    ("schema_registry_requests_total", f'{INGRESS},outcome="failed"', 0),
    ("secret_reload_total", f'{INGRESS},source="drx",outcome="failed"', 0),
    ("consumer_rebalances_total", f'{CONSUMER},kind="revoked"', 0),
    ("consumer_stopped_partitions", f'{CONSUMER},code="topic_recreated"', 0),
    ("circuit_state", f'{CONSUMER},state="open"', 0),
    ("safety_signals_total", f'{READER},kind="dispensed_after_cancel"', 0),
)
