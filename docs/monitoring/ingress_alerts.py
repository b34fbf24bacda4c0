"""The alerts of the ingress."""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from docs.monitoring.alert import AFTERMATH, Alert, grew
from docs.monitoring.objectives import FAST, SLOW, burns

_POSTS = 'drxbridge_http_requests_total{route="/webhooks/{source}"}'
_CLOCK = 'drxbridge_signature_failures_total{reason=~"stale|future"}'
# What one record is refused for says nothing of the others.
_REFUSED_RECORDS = 'drxbridge_produce_total{outcome=~"record_refused|record_too_large"}'
_FAILED_WRITES = 'drxbridge_produce_total{outcome!~"acknowledged|record_refused|record_too_large"}'
_OLDEST = "drxbridge_spool_oldest_event_timestamp_seconds"
_OFFSET = "drxbridge_provider_clock_offset_seconds"
_SOURCE = "namespace, source"
_LAST = 'drxbridge_source_last_event_timestamp_seconds{source!="_heartbeat"}'
_HEARTBEAT = "drxbridge_heartbeat_last_seen_timestamp_seconds"
_INFLIGHT = "drxbridge_http_inflight_requests"
_EXPIRY = "min by (namespace, source) (drxbridge_secret_expiry_timestamp_seconds) - time()"


def objective_alerts() -> list[Alert]:
    """Return those that watch a budget being spent."""
    unavailable, late = "Deliveries are answered 503", "Answers are late ({{ $labels.slo }})"
    return [
        *burns("IngressErrorBudgetBurnFast", "availability", FAST, unavailable),
        *burns("IngressErrorBudgetBurnSlow", "availability", SLOW, unavailable),
        *burns("IngressLatencyBurn", "latency_.*", SLOW, late),
    ]


def delivery_alerts() -> list[Alert]:
    """Return those about what senders send."""
    return [
        Alert(
            "SignatureFailureSpike",
            "(sum by (namespace, reason) (rate(drxbridge_signature_failures_total[10m]))\n"
            f"  / ignoring (reason) group_left sum by (namespace) (rate({_POSTS}[10m])) > 0.05)\n"
            "and sum by (namespace, reason) (increase(drxbridge_signature_failures_total[10m])) >= 10",
            "ticket",
            "More than 5 % of the deliveries fail signature verification: {{ $labels.reason }}",
            threshold="0.05",
        ),
        Alert(
            "ClockSkewSuspected",
            f"(sum by ({_SOURCE}) (rate({_CLOCK}[5m])) > 0.01 * sum by ({_SOURCE}) (rate({_OFFSET}_count[5m])))\n"
            f"and sum by ({_SOURCE}) (increase({_CLOCK}[5m])) >= 3",
            "page",
            "Genuine deliveries of {{ $labels.source }} are refused for their timestamp: its clock or ours is wrong",
        ),
        Alert(
            "ClockSkewSuspected",
            f"histogram_quantile(0.5, sum by ({_SOURCE}, le) (rate({_OFFSET}_bucket[5m]))) > 60",
            "ticket",
            "Half of the deliveries of {{ $labels.source }} are more than a minute off: its clock or ours is wrong",
            "2m",
        ),
        Alert(
            "IdConflict",
            grew("drxbridge_id_conflicts_total", "15m", by="namespace, service, source") + " > 0",
            "ticket",
            "{{ $labels.source }} has sent another body under an id that it had used",
            threshold="0",
        ),
        Alert(
            "UnrecognizedGrowing",
            "sum by (namespace, source, reason) (increase(drxbridge_unrecognized_total[30m])) > 5",
            "ticket",
            "Deliveries of {{ $labels.source }} are parked: {{ $labels.reason }}",
            threshold="5",
        ),
        Alert(
            "HeartbeatMissing",
            f"time() - min by (namespace) ({_HEARTBEAT}) > 120",
            "page",
            "No heartbeat of an ingress has reached Kafka for more than two minutes",
            threshold="120",
        ),
        Alert(
            "NoProviderTraffic",
            f"time() - max by (namespace, source) (max_over_time({_LAST}[30m])) > 1800\n"
            f"and max by (namespace, source) (changes({_LAST}[30m] offset 1w)) > 0\n"
            f"and on (namespace) time() - min by (namespace) ({_HEARTBEAT}) < 120",
            "page",
            "{{ $labels.source }} has sent nothing for half an hour, unlike last week; the heartbeat is well",
            "5m",
            threshold="1800",
        ),
    ]


def durability_alerts() -> list[Alert]:
    """Return those about making events durable."""
    return [
        Alert(
            "ProduceFailing",
            # In every minute of the two: what cannot be written is tried again every few seconds.
            f"{grew(_FAILED_WRITES, '1m', by='namespace')} > 0\n"
            'or max by (namespace) (drxbridge_producer_state{state!~"ready|closed"}) == 1',
            "page",
            "Writes to Kafka fail",
            "2m",
            keep=AFTERMATH,
        ),
        Alert(
            "ProduceFailing",
            grew(_REFUSED_RECORDS, "5m", by="namespace, topic, outcome") + " > 0",
            "ticket",
            "Kafka refuses a record of {{ $labels.topic }}: {{ $labels.outcome }}",
        ),
        Alert(
            "PartitionCountMismatch",
            "max by (namespace, topic) (drxbridge_partition_count_mismatch) > 0",
            "ticket",
            "{{ $labels.topic }} is missing, or has another number of partitions than the setting",
            "5m",
        ),
        Alert(
            "SpoolInUse",
            "sum by (namespace) (drxbridge_spool_events) > 0",
            "ticket",
            "{{ $value }} events are on disk and not in Kafka",
            "2m",
            threshold="0",
        ),
        Alert(
            "SpoolFillingUp",
            "(predict_linear(drxbridge_spool_free_bytes[15m], 3600) < 0) and drxbridge_spool_events > 0\n"
            "or drxbridge_spool_free_bytes < 0.1 * drxbridge_spool_capacity_bytes",
            "page",
            "The spool will be full within the hour; then deliveries are answered 503",
            "2m",
        ),
        Alert(
            "SpoolStuck",
            f"({_OLDEST} > 0 and changes({_OLDEST}[5m]) == 0)\n"
            'and ignoring (state) drxbridge_producer_state{state="ready"} == 1\n'
            "or drxbridge_spool_blocked_partitions > 0",
            "page",
            "Kafka works, but the oldest event on disk is not delivered",
            "5m",
        ),
        Alert(
            "SpoolUnavailable",
            "drxbridge_spool_available == 0 and drxbridge_spool_capacity_bytes > 0",
            "page",
            "The spool accepts nothing: what Kafka does not take in time is answered 503",
            "1m",
        ),
        Alert(
            "SpoolCorrupt",
            grew("drxbridge_spool_corrupt_records_total", "1h", by="namespace, instance")
            + " > 0\nor max by (namespace, instance) (drxbridge_spool_uncopied_ranges) > 0",
            "page",
            "Records on disk were damaged: events that were accepted cannot be read",
        ),
        Alert(
            "SpoolLocked",
            "max by (namespace, instance) (drxbridge_spool_locked_records) > 0",
            "page",
            "Records on disk cannot be read: their key is missing, or another version wrote them",
            "1m",
        ),
        Alert(
            "SpoolSetAside",
            "max by (namespace, instance) (drxbridge_spool_set_aside_records) > 0",
            "ticket",
            "Records that Kafka refused are set aside: events that were accepted wait to be put back",
            "15m",
            threshold="0",
        ),
        Alert(
            "SpoolUnread",
            "max by (namespace, instance) (drxbridge_spool_unread_segments) > 0",
            "page",
            "The disk cannot read events that were accepted",
            "1m",
        ),
        Alert(
            "DedupeNotReady",
            "min by (namespace, instance) (drxbridge_dedupe_ready) == 0",
            "ticket",
            "The ids of earlier events have not been read: a repeat may be written again",
            "15m",
        ),
    ]


def upkeep_alerts() -> list[Alert]:
    """Return those about what somebody must see to in time."""
    ends = "The last secret of {{ $labels.source }} ends in "
    return [
        Alert(
            "SchemaRegistryDown",
            'sum by (namespace) (increase(drxbridge_schema_registry_requests_total{outcome="failed"}[10m])) > 0',
            "ticket",
            "The schema registry does not answer; schemas that are known stay in use",
            "10m",
        ),
        Alert(
            "SecretReloadFailed",
            'sum by (namespace, source) (increase(drxbridge_secret_reload_total{outcome="failed"}[5m])) > 0',
            "ticket",
            "The secrets of {{ $labels.source }} cannot be read; the last good ones are in force",
            "1m",
        ),
        Alert("SecretExpiringSoon", f"{_EXPIRY} < 14 * 86400", "ticket", f"{ends}less than 14 days", "5m"),
        Alert("SecretExpiringSoon", f"{_EXPIRY} < 3 * 86400", "page", f"{ends}less than 3 days", "5m"),
        Alert(
            "ConnectionsEvicted",
            "sum by (namespace, instance, reason)"
            ' (increase(drxbridge_http_connections_ended_total{reason=~"too_many|bodies_full"}[5m])) > 0',
            "ticket",
            "{{ $labels.instance }} ends connections for want of room ({{ $labels.reason }})",
            "5m",
            threshold="0",
        ),
        Alert(
            "EventLoopLate",
            "sum by (namespace, instance) (increase(drxbridge_event_loop_lag_seconds_count[5m]))\n"
            '- sum by (namespace, instance) (increase(drxbridge_event_loop_lag_seconds_bucket{le="1.0"}[5m])) > 0',
            "ticket",
            "The event loop of {{ $labels.instance }} was blocked for more than a second",
        ),
        Alert(
            "EngineFault",
            'sum by (namespace, source) (increase(drxbridge_engine_deferrals_total{cause="fault"}[15m])) > 0',
            "ticket",
            "The engine fails on deliveries of {{ $labels.source }}; the reference code takes them",
        ),
        Alert(
            "LogDropped",
            grew("drxbridge_log_dropped_total", "5m", by="namespace, job, instance") + " > 0",
            "ticket",
            "{{ $labels.instance }} cannot write its log: {{ $value }} lines are missing",
            threshold="0",
        ),
        Alert(
            "TargetMissing",
            f"group by (namespace, job) (last_over_time({_INFLIGHT}[1w]))\n"
            f"unless group by (namespace, job) ({_INFLIGHT})\n"
            f"or absent_over_time({_INFLIGHT}[1w])",
            "page",
            "No ingress is scraped: the other alerts cannot fire",
            "5m",
        ),
        Alert(
            "TargetMissing",
            "max by (namespace, job, instance) (up) == 0\n"
            "and on (namespace, job) group by (namespace, job) (last_over_time(drxbridge_build_info[1w]))",
            "ticket",
            "{{ $labels.instance }} does not answer Prometheus: what the other alerts say of it is old",
            "5m",
        ),
    ]
