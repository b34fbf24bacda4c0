"""Cases of making events durable, and of what somebody must see to."""

from tests.monitoring.case import HALF, HOUR, REST, TICKET, Case, Span, at, began, bend, firing, quiet, step
from tests.monitoring.series import CONSUMER, INGRESS, READER, flat, rising


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
        # By somebody else on the same disk, while nothing is spooled.
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
