"""Cases of the burn rates, and of what senders send."""

from tests.monitoring.case import (
    DAYS,
    DOWN,
    HALF,
    HOUR,
    LONG,
    REFUSED,
    TICKET,
    WEEK,
    Case,
    Span,
    at,
    bend,
    firing,
    quiet,
    step,
)
from tests.monitoring.series import (
    ARCHIVE,
    CONSUMER,
    DURATIONS,
    FRESHNESS,
    INGRESS,
    POSTS,
    ages,
    flat,
    late_answers,
    rising,
)


def budgets() -> list[Case]:
    night = {f'{POSTS}"accepted"}}': rising(2, HOUR), DOWN: step(8)}
    of_a_lake = [each.replace(CONSUMER, ARCHIVE) for each in (FRESHNESS.format(part="count") + "}", ages("5.0"))]
    batching = dict(zip(of_a_lake, (rising(60, HOUR), bend(60, 30)), strict=True))
    batching[at("archive_current_timestamp_seconds", ARCHIVE)] = rising(60, HOUR)
    return [
        firing("IngressErrorBudgetBurnFast", {DOWN: bend(0, 2)}),
        quiet("IngressErrorBudgetBurnFast", "at a few failures of a thin night", night),
        quiet("IngressErrorBudgetBurnFast", "when it is over", {DOWN: f"{rising(9, 10)} {flat(81, HOUR - 10)}"}),
        quiet("IngressErrorBudgetBurnFast", "within the budget", {DOWN: rising(0.6, LONG)}, span=DAYS),
        firing("IngressLatencyBurn", {late_answers("0.25"): bend(60, 30)}, severity=TICKET),
        quiet("IngressLatencyBurn", "at one in twenty for a while", {late_answers("0.25"): bend(60, 57)}),
        quiet(
            "IngressLatencyBurn",
            "without answers",
            {
                DURATIONS.format(part="count") + "}": flat(0, HOUR),
                late_answers("0.25"): flat(0, HOUR),
                late_answers("2.0"): flat(0, HOUR),
            },
        ),
        firing("FreshnessBurnFast", {ages("5.0"): bend(60, 30)}),
        firing("FreshnessBurnFast", {ages("60.0"): bend(60, 55)}),
        quiet("FreshnessBurnFast", "of what waits for a batch on purpose", batching),
        quiet(
            "FreshnessBurnFast",
            "at a few late events of a thin night",
            {
                FRESHNESS.format(part="count") + "}": rising(1, HOUR),
                ages("5.0"): f"{rising(1, 52)} {flat(51, 9)}",
                ages("60.0"): rising(1, HOUR),
            },
        ),
        quiet("FreshnessBurnFast", "within the budget", {ages("5.0"): rising(1791, LONG)}, span=DAYS),
    ]


def deliveries() -> list[Case]:
    mismatch, stale = (
        at("signature_failures_total", INGRESS, f'source="drx",reason="{each}"') for each in ("mismatch", "stale")
    )
    offset = [
        at("provider_clock_offset_seconds_bucket", INGRESS, f'source="drx",le="{le}"')
        for le in ("10", "60", "300", "+Inf")
    ]
    unused = {at("provider_clock_offset_seconds_count", INGRESS, 'source="drx"'): flat(0, HOUR)}
    conflicts = at("id_conflicts_total", INGRESS, 'source="drx"')
    parked = at("unrecognized_total", INGRESS, 'source="drx",reason="unusable"')
    unknown = at("other_reported_total", INGRESS, 'source="drx",reported_type="prescription.stored"')
    inflight = at("http_inflight_requests", INGRESS)
    other = at("http_inflight_requests", 'namespace="rx",job="other",instance="ingress-0"')
    heart = at("heartbeat_last_seen_timestamp_seconds", INGRESS, 'service="ingress"')
    last = at("source_last_event_timestamp_seconds", INGRESS, 'source="drx"')
    week = Span(WEEK + 7, 10, "drx-bridge-deliveries")
    silence = bend(600, 0, samples=WEEK + 7, last=7)
    return [
        firing("SignatureFailureSpike", {mismatch: bend(0, 6), REFUSED: bend(0, 6)}, severity=TICKET),
        quiet("SignatureFailureSpike", "at one in sixty", {mismatch: bend(0, 1), REFUSED: bend(0, 1)}),
        firing("ClockSkewSuspected", {stale: bend(0, 2), REFUSED: bend(0, 2)}),
        # One sender of several, of whose deliveries none is accepted any more.
        firing("ClockSkewSuspected", {stale: bend(0, 1), f'{POSTS}"accepted"}}': rising(600, HOUR)} | unused),
        firing(
            "ClockSkewSuspected",
            dict(zip(offset, [flat(0, HOUR)] * 2 + [rising(60, HOUR)] * 2, strict=True)),
            severity=TICKET,
        ),
        quiet("ClockSkewSuspected", "at seconds", dict.fromkeys(offset, rising(60, HOUR))),
        quiet("ClockSkewSuspected", "at one stale delivery", {stale: step(1, last=3), REFUSED: step(1, last=3)}),
        firing("IdConflict", {conflicts: step(1, last=10)}, severity=TICKET),
        firing(
            "IdConflict", {at("id_conflicts_total", CONSUMER, 'source="drx"'): f"_x51 {flat(1, 10)}"}, severity=TICKET
        ),
        quiet("IdConflict", "at an old one", {conflicts: step(3)}),
        firing("UnrecognizedGrowing", {parked: bend(0, 1)}, severity=TICKET),
        quiet("UnrecognizedGrowing", "at a few", {parked: step(4)}),
        firing("UnknownTypes", {unknown: f"_x{LONG - 2} {flat(1, 2)}"}, severity=TICKET, span=DAYS),
        quiet(
            "UnknownTypes", "at a word of last week", {unknown: f"{flat(1, 20)} _x{LONG - 22} {flat(1, 2)}"}, span=DAYS
        ),
        quiet("UnknownTypes", "at one of hours ago", {unknown: f"_x{LONG - 9} {flat(1, 9)}"}, span=DAYS),
        firing("HeartbeatMissing", {heart: bend(60, 0)}),
        quiet("HeartbeatMissing", "at a late one", {heart: rising(60, HOUR, start=-100)}),
        firing("NoProviderTraffic", {last: silence}, span=week),
        quiet(
            "NoProviderTraffic",
            "where it was silent a week ago too",
            {last: f"{flat(0, 13)} {bend(600, 0, samples=WEEK - 6, last=7)}"},
            span=week,
        ),
        firing("HeartbeatMissing", {inflight: flat(3, HALF)}),
        firing("HeartbeatMissing", {inflight: flat(3, HALF), other: flat(3, HALF)}),
        quiet("HeartbeatMissing", "where another ingress runs", {inflight: flat(3, HALF), other: flat(3, HOUR)}),
        quiet("HeartbeatMissing", "at a scrape or two that failed", {inflight: f"{flat(3, HOUR - 3)} _x3"}),
        quiet(
            "NoProviderTraffic",
            "where the fault is ours",
            {last: silence, heart: silence},
            "HeartbeatMissing",
            span=week,
        ),
    ]
