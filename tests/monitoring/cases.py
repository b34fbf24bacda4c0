"""Cases in which each alert must fire, or just not fire; each is a complete system with one fault."""

from dataclasses import dataclass

from tests.monitoring.series import (
    ARCHIVE,
    CONSUMER,
    DURATIONS,
    FRESHNESS,
    INGRESS,
    POSTS,
    READER,
    WORKFLOW,
    Series,
    ages,
    flat,
    late_answers,
    rising,
)

# An hour, of which the second half has the fault.
HOUR, HALF = 61, 30
REST = HOUR - HALF
LONG = 3 * 24 * 2 + 1  # three days of samples half an hour apart
WEEK = 7 * 24 * 6
PAGE, TICKET = "page", "ticket"


@dataclass(frozen=True, slots=True)
class Span:
    """Duration of a case; a long one uses only the rules of one group, as each is evaluated at each sample."""

    samples: int = HOUR
    minutes: int = 1
    only: str = ""


HOURLY = Span()


@dataclass(frozen=True, slots=True)
class Case:
    """A system at its last sample; `fires` has all firing alerts, by name and severity."""

    name: str
    changes: Series
    fires: frozenset[tuple[str, str]] = frozenset()
    span: Span = HOURLY


def step(after: float, *, before: float = 0, last: int = REST) -> str:
    """Another value in the last samples."""
    return f"{flat(before, HOUR - last)} {flat(after, last)}"


def bend(first: float, then: float, *, samples: int = HOUR, last: int = REST) -> str:
    """A counter that continues at another rate."""
    kept = samples - last
    return f"{rising(first, kept)} {rising(then, last, start=first * kept)}"


def began(value: float) -> str:
    """A series that exists only since its first count."""
    return f"_x{HALF} {flat(value, REST)}"


def at(name: str, where: str, more: str = "") -> str:
    return f"drxbridge_{name}{{{where}{',' if more else ''}{more}}}"


def firing(alert: str, changes: Series, *, severity: str = PAGE, also: str = "", span: Span = HOURLY) -> Case:
    """The fault of an alert; `also` is another ticket that fires: `spool`, `parked`, or that of the same name."""
    besides = {"spool": "SpoolInUse", "parked": "ParkedKeysGrowing", "ticket": alert}
    others = {(besides[also], TICKET)} if also else set()
    return Case(f"{alert}: {severity}", changes, frozenset({(alert, severity), *others}), span)


def quiet(alert: str, why: str, changes: Series, *others: str, span: Span = HOURLY) -> Case:
    """A case in which the alert must not fire; `others` do."""
    fires = {(other, TICKET if other in {"SpoolInUse", "ProduceFailing"} else PAGE) for other in others}
    return Case(f"{alert}: quiet {why}", changes, frozenset(fires), span)


DOWN = f'{POSTS}"unavailable"}}'
REFUSED = f'{POSTS}"refused"}}'
DAYS = Span(LONG, 30)


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
        # One sender of several, whose deliveries are no longer accepted.
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


def durability() -> list[Case]:
    ready, stalled = (at("producer_state", INGRESS, f'state="{each}"') for each in ("ready", "stalled"))
    away = {ready: step(0, before=1), stalled: step(1)}
    events, free, oldest = (
        at(each, INGRESS) for each in ("spool_events", "spool_free_bytes", "spool_oldest_event_timestamp_seconds")
    )
    corrupt = at("spool_corrupt_records_total", INGRESS)
    available, capacity = at("spool_available", INGRESS), at("spool_capacity_bytes", INGRESS)
    refused = at("produce_total", INGRESS, 'topic="t",outcome="outcome_unknown"')
    large = at("produce_total", INGRESS, 'topic="t",outcome="record_too_large"')
    unready = at("dedupe_ready", INGRESS)
    some = step(5)
    return [
        firing("ProduceFailing", away, severity=TICKET),
        firing("ProduceFailing", {refused: bend(0, 1)}, severity=TICKET),
        firing("ProduceFailing", {refused: f"_x57 {flat(1, 4)}", large: f"_x57 {flat(1, 4)}"}, severity=TICKET),
        # Why one record is refused, while others are written; the spool tries it again and again.
        firing("ProduceFailing", {large: bend(0, 12)}, severity=TICKET),
        quiet("ProduceFailing", "at single ones", {refused: f"{flat(0, 40)} {flat(1, 17)} {flat(2, 4)}"}),
        quiet("ProduceFailing", "at a short one", {ready: step(0, before=1, last=2), stalled: step(1, last=2)}),
        firing(
            "PartitionCountMismatch", {at("partition_count_mismatch", INGRESS, 'topic="t"'): step(1)}, severity=TICKET
        ),
        quiet(
            "PartitionCountMismatch", "at once", {at("partition_count_mismatch", INGRESS, 'topic="t"'): step(1, last=2)}
        ),
        firing("SpoolInUse", {events: some}, severity=TICKET),
        quiet("SpoolInUse", "at a minute of it", {events: step(5, last=2)}),
        firing(
            "SpoolFillingUp", {events: some, free: f"{flat(9e8, HALF)} {rising(-2e7, REST, start=9e8)}"}, also="spool"
        ),
        # By other files on the same disk, while the spool is empty.
        firing("SpoolFillingUp", {free: step(9e7, before=9e8)}),
        quiet("SpoolFillingUp", "at half of it, standing still", {events: some, free: flat(5e8, HOUR)}, "SpoolInUse"),
        firing("SpoolStuck", {events: some, oldest: step(1000)}, severity=TICKET, also="spool"),
        firing("SpoolStuck", {at("spool_blocked_partitions", INGRESS): step(1)}, severity=TICKET),
        quiet("SpoolStuck", "while it drains", {events: some, oldest: rising(60, HOUR)}, "SpoolInUse"),
        quiet(
            "SpoolStuck",
            "while Kafka is away",
            {**away, events: some, oldest: step(1000)},
            "SpoolInUse",
            "ProduceFailing",
        ),
        firing("SpoolUnavailable", {available: step(0, before=1)}, severity=TICKET),
        quiet("SpoolUnavailable", "without a spool", dict.fromkeys((available, capacity, free), flat(0, HOUR))),
        firing("SpoolUnreadable", {corrupt: step(2)}),
        firing("SpoolUnreadable", {corrupt: began(2)}),
        quiet("SpoolUnreadable", "at an old one", {corrupt: flat(2, 2 * HOUR)}, span=Span(2 * HOUR)),
        quiet(
            "SpoolUnreadable",
            "at an old one, an hour after a scrape failed",
            {corrupt: f"{flat(2, HOUR)} stale {flat(2, HOUR - 1)}"},
            span=Span(2 * HOUR),
        ),
        firing("SpoolUnreadable", {at("spool_locked_records", INGRESS): step(1)}),
        quiet("SpoolUnreadable", "at once", {at("spool_locked_records", INGRESS): step(1, last=1)}),
        firing("SpoolSetAside", {at("spool_set_aside_records", INGRESS): step(1)}, severity=TICKET),
        quiet("SpoolSetAside", "soon put back", {at("spool_set_aside_records", INGRESS): step(1, last=10)}),
        firing("SpoolUnreadable", {at("spool_unread_segments", INGRESS): step(1)}),
        quiet("SpoolUnreadable", "at once", {at("spool_unread_segments", INGRESS): step(1, last=1)}),
        firing("DedupeNotReady", {unready: step(0, before=1)}, severity=TICKET),
        quiet("DedupeNotReady", "in the first minutes", {unready: step(0, before=1, last=10)}),
    ]


def upkeep() -> list[Case]:
    registry = at("schema_registry_requests_total", INGRESS, 'outcome="failed"')
    reload = at("secret_reload_total", INGRESS, 'source="drx",outcome="failed"')
    expiry, day = at("secret_expiry_timestamp_seconds", INGRESS, 'source="drx"'), 86_400
    loop = at("event_loop_lag_seconds_bucket", INGRESS, 'le="1.0"')
    ended, slow = (at("http_connections_ended_total", INGRESS, f'reason="{r}"') for r in ("too_many", "slow_request"))
    fault, form = (at("fast_path_deferrals_total", INGRESS, f'source="drx",cause="{c}"') for c in ("fault", "form"))
    return [
        firing("SchemaRegistryDown", {registry: bend(0, 2)}, severity=TICKET),
        quiet("SchemaRegistryDown", "at one failure", {registry: step(1, last=5)}),
        firing("SecretReloadFailed", {reload: bend(0, 60)}, severity=TICKET),
        quiet("SecretReloadFailed", "at an old one", {reload: step(3)}),
        firing("SecretExpiringSoon", {expiry: flat(10 * day, HOUR)}, severity=TICKET),
        firing("SecretExpiringSoon", {expiry: flat(2 * day, HOUR)}, also="ticket"),
        quiet("SecretExpiringSoon", "at three weeks", {expiry: flat(21 * day, HOUR)}),
        firing("ConnectionsEvicted", {ended: bend(0, 3)}, severity=TICKET),
        quiet("ConnectionsEvicted", "at slow clients", {slow: bend(0, 60)}),
        firing("EventLoopLate", {loop: bend(60, 59)}, severity=TICKET),
        quiet("EventLoopLate", "at an old one", {loop: f"{rising(60, 20)} {rising(60, HOUR - 20, start=1199)}"}),
        firing("FastPathFault", {fault: step(1, last=10)}, severity=TICKET),
        quiet("FastPathFault", "at an old one", {fault: step(1)}),
        quiet("FastPathFault", "at deliveries that do not conform plainly", {form: bend(0, 60)}),
        firing("LogDropped", {at("log_dropped_total", INGRESS): step(7, last=4)}, severity=TICKET),
        firing("LogDropped", {at("log_dropped_total", CONSUMER): f"_x57 {flat(1, 4)}"}, severity=TICKET),
        quiet("LogDropped", "at old ones", {at("log_dropped_total", INGRESS): step(7)}),
        firing("TargetMissing", {f"up{{{READER}}}": step(0, before=1)}, severity=TICKET),
        quiet("TargetMissing", "at what is not ours", {'up{namespace="rx",job="else",instance="a"}': flat(0, HOUR)}),
    ]


def consumers() -> list[Case]:
    settled = at("consumer_records_total", CONSUMER, 'topic="t",outcome="applied"')
    age, offset = (
        at(each, CONSUMER, 'topic="t",partition="0"') for each in ("consumer_lag_seconds", "consumer_settled_offset")
    )
    stopped = at("consumer_stopped_partitions", CONSUMER, 'code="topic_recreated"')
    poll, begun = (at(each, CONSUMER) for each in ("poll_age_seconds", "consumer_start_timestamp_seconds"))
    revoked = at("consumer_rebalances_total", CONSUMER, 'kind="revoked"')
    others = [CONSUMER.replace("-0", f"-{number}") for number in range(1, 12)]
    rollout = {at("poll_age_seconds", each): flat(1, HOUR) for each in others}
    rollout |= {at("consumer_rebalances_total", each, 'kind="revoked"'): step(16, last=8) for each in others}
    circuit = at("circuit_state", CONSUMER, 'state="open"')
    keys, oldest = (at(each, CONSUMER) for each in ("parked_keys", "parked_oldest_age_seconds"))
    outbox = at("outbox_oldest_age_seconds", CONSUMER)
    fenced, full = at("fence_rejected_total", CONSUMER), at("parking_full_partitions", CONSUMER)
    safety = at("safety_signals_total", READER, 'kind="dispensed_after_cancel"')
    checked = at("workflow_timers_checked_timestamp_seconds", WORKFLOW)
    current = at("archive_current_timestamp_seconds", ARCHIVE)
    return [
        # Of the other partitions, and of heartbeats, enough is settled all the while.
        firing("ConsumerStuck", {offset: bend(60, 0), age: bend(0, 60)}),
        quiet("ConsumerStuck", "with nothing to do", {settled: bend(60, 0), offset: bend(60, 0), age: flat(0, HOUR)}),
        quiet("ConsumerStuck", "when a record comes after a rest", {offset: bend(60, 0), age: step(200, last=4)}),
        quiet("ConsumerStuck", "while it catches up with the past", {age: flat(1e6, HOUR)}),
        firing("ArchiveLate", {current: bend(60, 0)}, severity=TICKET),
        # Also if the timestamp is reset at every restart.
        firing(
            "ArchiveLate",
            {at("archive_missing_files_total", ARCHIVE): bend(0, 1), current: rising(60, HOUR)},
            severity=TICKET,
        ),
        quiet(
            "ArchiveLate",
            "when another member publishes",
            {current: flat(0, HOUR), f'{current[:-1]},x="1"}}': rising(60, HOUR)},
        ),
        firing("ConsumerStuck", {stopped: step(1)}),
        quiet("ConsumerStuck", "when it goes on", {stopped: f"{flat(1, HALF)} {flat(0, REST)}"}),
        firing("ConsumerClientFailing", {at("client_rebuilds_total", CONSUMER): bend(0, 1)}, severity=TICKET),
        quiet(
            "ConsumerClientFailing", "at a rolling restart", {at("client_rebuilds_total", CONSUMER): step(3, last=5)}
        ),
        firing("ConsumerStuck", {poll: flat(1, HALF)}, span=Span(70)),
        firing("ConsumerStuck", {poll: flat(1, HALF)}, span=Span(3 * HOUR)),
        quiet("ConsumerStuck", "during a restart", {poll: f"{flat(1, 60)} _x8 {flat(1, 2)}"}, span=Span(70)),
        firing("ConsumerStuck", {begun: rising(60, HOUR), offset: flat(7, HOUR)}),
        quiet("ConsumerStuck", "at a few restarts", {begun: step(9, last=9), offset: flat(7, HOUR)}),
        quiet("ConsumerStuck", "at restarts while it gets on", {begun: rising(60, HOUR), offset: rising(60, HOUR)}),
        firing("RebalanceStorm", {revoked: bend(0, 1)}, severity=TICKET),
        quiet("RebalanceStorm", "at a rollout", {revoked: step(4, last=5)}),
        quiet("RebalanceStorm", "at a rollout of many", rollout),
        firing("FenceRejections", {fenced: step(1, last=5)}, severity=TICKET),
        quiet("FenceRejections", "at an old one", {fenced: step(1)}),
        firing("SinkCircuitOpen", {circuit: step(1)}, severity=TICKET),
        quiet("SinkCircuitOpen", "at a short one", {circuit: step(1, last=2)}),
        firing("WorkflowTimersLate", {checked: flat(0, HOUR)}, severity=TICKET),
        quiet("WorkflowTimersLate", "while they are looked at", {checked: rising(60, HOUR)}),
        firing("ParkedKeysGrowing", {keys: step(1), oldest: rising(60, HOUR, start=-1800)}, severity=TICKET),
        firing("ConsumerStuck", {keys: flat(1, HOUR), oldest: rising(60, HOUR, start=600)}, also="parked"),
        quiet("ParkedKeysGrowing", "when it is released", {keys: f"{flat(1, HALF)} {flat(0, REST)}"}),
        firing("ConsumerStuck", {at("park_breaker_open", CONSUMER): step(1)}),
        quiet(
            "ConsumerStuck",
            "when it was resumed",
            {at("park_breaker_open", CONSUMER): f"{flat(1, HALF)} {flat(0, REST)}"},
        ),
        firing("ConsumerStuck", {full: step(1)}),
        quiet("ConsumerStuck", "when there is room again", {full: f"{flat(1, HALF)} {flat(0, REST)}"}),
        firing("OutboxStuck", {outbox: rising(60, HALF + REST)}, severity=TICKET),
        quiet("OutboxStuck", "while it is emptied", {outbox: flat(200, HALF + REST)}),
        firing("SafetySignal", {safety: step(1, last=5)}),
        firing("SafetySignal", {safety: f"_x56 {flat(1, 5)}"}),
        firing("SafetySignal", {safety: f"{flat(0, 40)} stale _x14 {flat(2, 6)}"}),
        firing("SafetySignal", {safety: f"{flat(5, 40)} stale _x14 {flat(2, 6)}"}),
        quiet("SafetySignal", "at an old one", {safety: step(1)}),
        quiet(
            "SafetySignal",
            "at an old one, ten minutes after a scrape failed",
            {safety: f"{flat(3, 50)} stale {flat(3, 10)}"},
        ),
    ]


def cases() -> list[Case]:
    well = [Case("nothing is wrong", {}, span=Span(3 * HOUR)), Case("nothing is wrong for days", {}, span=DAYS)]
    return [*well, *budgets(), *deliveries(), *durability(), *upkeep(), *consumers()]
