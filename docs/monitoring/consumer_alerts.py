"""The alerts of the consumers."""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from docs.monitoring.alert import AFTERMATH, Alert, grew
from docs.monitoring.objectives import BATCHING, FAST, SLOW, burns

_BY = "namespace, service"
_PART = f"{_BY}, topic, partition"
_TAKEN = 'drxbridge_consumer_rebalances_total{kind!="assigned"}'
_LAG = f'drxbridge_consumer_lag_seconds{{service%s"{BATCHING}"}}'
_POLLS = "drxbridge_poll_age_seconds"
# Answers by which an endpoint refuses us, or says that it is elsewhere: waiting alone does not heal them.
_REFUSED = 'drxbridge_forward_requests_total{code=~"http_3..|http_401|http_403|http_404|http_407|http_410"}'
_FHIR_REFUSED = 'drxbridge_fhir_requests_total{code=~"http_3..|http_401|http_403|http_407"}'

# Answers by which a receiver of HL7 v2 refuses every message, or answers something else.
_NAKS = 'drxbridge_hl7v2_requests_total{code=~"ar_20[0-3]|out_of_step|tls"}'
# Answers by which a Temporal server refuses us, or has not what we call it for.
_CALLS = 'drxbridge_workflow_requests_total{code=~"unauthorized|namespace_missing|no_api_key"}'
_TIMERS = "drxbridge_workflow_timers_checked_timestamp_seconds"


def progress_alerts() -> list[Alert]:
    """Return those about whether events are applied, and soon."""
    late = "{{ $labels.service }} is late ({{ $labels.slo }})"
    return [
        *burns("FreshnessBurnFast", "freshness_.*", FAST, late),
        *burns("FreshnessBurnSlow", "freshness_.*", SLOW, late),
        Alert(
            "ConsumerStalled",
            f"max by ({_PART}) ({_LAG % '!~'}) > 300\n"
            f"and sum by ({_PART}) (delta(drxbridge_consumer_settled_offset[5m])) == 0",
            "page",
            "{{ $labels.service }} settles nothing of {{ $labels.topic }}, partition {{ $labels.partition }}",
            "2m",
            threshold="300",
        ),
        Alert(
            "ArchiveLate",
            f"time() - max by ({_BY}) (drxbridge_archive_current_timestamp_seconds) > 900\n"
            f"or max by ({_BY}) (\n"
            f"  max by ({_PART}) ({_LAG % '=~'}) > 900\n"
            f"  and sum by ({_PART}) (delta(drxbridge_consumer_settled_offset[15m])) == 0\n"
            ")",
            "page",
            "Events of the last quarter of an hour are not in the lake of {{ $labels.service }}",
            "1m",
        ),
        Alert(
            "PartitionStopped",
            f"sum by ({_BY}, code) (drxbridge_consumer_stopped_partitions) > 0",
            "page",
            "{{ $labels.service }} reads {{ $value }} partitions no more: {{ $labels.code }}",
            "1m",
        ),
        Alert(
            "ConsumerClientFailing",
            # A client that is replaced has no lag to be seen by. A restart of every broker of three costs it one each.
            f"{grew('drxbridge_client_rebuilds_total', '10m', by=_BY)} > 5",
            "page",
            "{{ $labels.service }} gives up its Kafka client again and again, and settles nothing meanwhile",
            "1m",
            threshold="5",
        ),
        Alert(
            "ConsumerMissing",
            f"count by ({_BY}) (last_over_time({_POLLS}[1w]))\nunless count by ({_BY}) ({_POLLS})",
            "page",
            "{{ $labels.service }} was scraped this week and is no more",
            "5m",
        ),
        Alert(
            "RebalanceStorm",
            # Of one member, since all count the same rebalance. A rollout makes two for each member that it replaces.
            f"max by ({_BY}) (sum by ({_BY}, instance) (increase({_TAKEN}[10m])))\n"
            f"> 4 + 2 * count by ({_BY}) ({_POLLS})",
            "ticket",
            "Members of {{ $labels.service }} lose their partitions repeatedly",
        ),
        Alert(
            "FenceRejections",
            f"{grew('drxbridge_fence_rejected_total', '10m', by=_BY)} > 0",
            "ticket",
            "A write of {{ $labels.service }} was refused: its partition is claimed by another, or commits were lost",
            threshold="0",
        ),
        Alert(
            "SinkCircuitOpen",
            f'max by ({_BY}) (drxbridge_circuit_state{{state!="closed"}}) == 1',
            "page",
            "The sink of {{ $labels.service }} is away; nothing is applied and nothing is lost",
            "2m",
            keep=AFTERMATH,
        ),
        Alert(
            "ForwardRefused",
            f"{grew(_REFUSED, '10m', by=f'{_BY}, code')} > 0",
            "page",
            "The endpoint of {{ $labels.service }} refuses events: {{ $labels.code }}",
            "5m",
        ),
        Alert(
            "FhirRefused",
            f"{grew(_FHIR_REFUSED, '10m', by=f'{_BY}, code')} > 0",
            "page",
            "The FHIR server of {{ $labels.service }} refuses us: {{ $labels.code }}",
            "5m",
        ),
        Alert(
            "Hl7v2Refused",
            f"{grew(_NAKS, '10m', by=f'{_BY}, code')} > 0",
            "page",
            "The receiver of {{ $labels.service }} refuses messages: {{ $labels.code }}",
            "5m",
        ),
        Alert(
            "WorkflowRefused",
            f"{grew(_CALLS, '10m', by=f'{_BY}, code')} > 0",
            "page",
            "The Temporal server of {{ $labels.service }} refuses us: {{ $labels.code }}",
            "5m",
        ),
        Alert(
            "WorkflowTimersLate",
            f"time() - max by ({_BY}) ({_TIMERS}) > 900",
            "page",
            "{{ $labels.service }} starts no workflow for what waits too long",
            "1m",
        ),
    ]


def trouble_alerts() -> list[Alert]:
    """Return those about events that could not be applied, or that say something alarming."""
    safety = grew("drxbridge_safety_signals_total", "10m", by="namespace, kind")
    return [
        Alert(
            "ParkedKeysGrowing",
            f"max by ({_BY}) (drxbridge_parked_keys) > 0",
            "ticket",
            "{{ $labels.service }} has parked {{ $value }} keys: their later events wait behind them",
        ),
        Alert(
            "ParkedKeysGrowing",
            f"max by ({_BY}) (drxbridge_parked_oldest_age_seconds) > 3600",
            "page",
            "A key of {{ $labels.service }} has been parked for {{ $value | humanizeDuration }} and nobody has decided",
            threshold="3600",
        ),
        Alert(
            "ParkBreakerOpen",
            f"max by ({_BY}) (drxbridge_park_breaker_open) > 0",
            "page",
            "{{ $labels.service }} has stopped: too much would have been set aside",
        ),
        Alert(
            "ParkingFull",
            f"max by ({_BY}) (drxbridge_parking_full_partitions) > 0",
            "page",
            "{{ $labels.service }} has stopped partitions: no more events can be set aside",
            "1m",
        ),
        Alert(
            "OutboxStuck",
            f"max by ({_BY}) (drxbridge_outbox_oldest_age_seconds) > 300",
            "page",
            "Records published by {{ $labels.service }} do not reach their topic",
            "2m",
            threshold="300",
        ),
        Alert(
            "SafetySignal",
            f"{safety} > 0",
            "page",
            "A patient may be in danger: {{ $labels.kind }}",
        ),
    ]
