"""Cases of the consumers."""

from __future__ import annotations

from tests.monitoring.case import (
    HALF,
    HOUR,
    REST,
    TICKET,
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
    FHIR,
    FORWARD,
    HL7V2,
    READER,
    WORKFLOW,
    flat,
    rising,
)


def consumers() -> list[Case]:
    """Cases of the consumers."""
    settled = at("consumer_records_total", CONSUMER, 'topic="t",outcome="applied"')
    age, offset = (
        at(each, CONSUMER, 'topic="t",partition="0"') for each in ("consumer_lag_seconds", "consumer_settled_offset")
    )
    stopped = at("consumer_stopped_partitions", CONSUMER, 'code="topic_recreated"')
    poll = at("poll_age_seconds", CONSUMER)
    revoked = at("consumer_rebalances_total", CONSUMER, 'kind="revoked"')
    others = [CONSUMER.replace("-0", f"-{number}") for number in range(1, 12)]
    rollout = {at("poll_age_seconds", each): flat(1, HOUR) for each in others}
    rollout |= {at("consumer_rebalances_total", each, 'kind="revoked"'): step(16, last=8) for each in others}
    circuit = at("circuit_state", CONSUMER, 'state="open"')
    keys, oldest = (at(each, CONSUMER) for each in ("parked_keys", "parked_oldest_age_seconds"))
    outbox = at("outbox_oldest_age_seconds", CONSUMER)
    fenced, full = at("fence_rejected_total", CONSUMER), at("parking_full_partitions", CONSUMER)
    safety = at("safety_signals_total", READER, 'kind="dispensed_after_cancel"')
    refused, away = (at("forward_requests_total", FORWARD, f'code="http_{status}"') for status in (401, 503))
    nak, of_one = (at("hl7v2_requests_total", HL7V2, f'code="{code}"') for code in ("ar_200", "ae_101"))
    denied, late = (at("workflow_requests_total", WORKFLOW, f'code="{code}"') for code in ("unauthorized", "late"))
    checked = at("workflow_timers_checked_timestamp_seconds", WORKFLOW)
    unknown, new = (at("fhir_requests_total", FHIR, f'code="http_{status}"') for status in (401, 404))
    current = at("archive_current_timestamp_seconds", ARCHIVE)
    waits, stands = (
        at(each, ARCHIVE, 'topic="t",partition="0"') for each in ("consumer_lag_seconds", "consumer_settled_offset")
    )
    return [
        # Of the other partitions, and of heartbeats, enough is settled all the while.
        firing("ConsumerStalled", {offset: bend(60, 0), age: bend(0, 60)}),
        quiet("ConsumerStalled", "with nothing to do", {settled: bend(60, 0), offset: bend(60, 0), age: flat(0, HOUR)}),
        quiet("ConsumerStalled", "when a record comes after a rest", {offset: bend(60, 0), age: step(200, last=4)}),
        quiet("ConsumerStalled", "while it catches up with the past", {age: flat(1e6, HOUR)}),
        quiet(
            "ConsumerStalled",
            "when a lake waits for a batch",
            {stands: bend(60, 0, last=11), waits: bend(0, 60, last=11)},
        ),
        firing("ArchiveLate", {current: bend(60, 0)}),
        firing("ArchiveLate", {stands: bend(60, 0), waits: bend(0, 60)}),
        firing("ArchiveLate", {waits: flat(1e4, HOUR), stands: flat(9, HOUR)}),
        quiet("ArchiveLate", "while a batch waits to be full", {stands: step(60, last=5), waits: rising(60, 5)}),
        quiet("ArchiveLate", "while it catches up with the past", {waits: flat(1e6, HOUR), stands: rising(60, HOUR)}),
        quiet(
            "ArchiveLate",
            "when another member publishes",
            {current: flat(0, HOUR), f'{current[:-1]},x="1"}}': rising(60, HOUR)},
        ),
        firing("PartitionStopped", {stopped: step(1)}),
        quiet("PartitionStopped", "when it goes on", {stopped: f"{flat(1, HALF)} {flat(0, REST)}"}),
        firing("ConsumerClientFailing", {at("client_rebuilds_total", CONSUMER): bend(0, 1)}),
        quiet(
            "ConsumerClientFailing", "at a rolling restart", {at("client_rebuilds_total", CONSUMER): step(3, last=5)}
        ),
        firing("ConsumerMissing", {poll: flat(1, HALF)}, span=Span(70)),
        firing("ConsumerMissing", {poll: flat(1, HALF)}, span=Span(3 * HOUR)),
        quiet("ConsumerMissing", "during a restart", {poll: f"{flat(1, 60)} _x8 {flat(1, 2)}"}, span=Span(70)),
        firing("RebalanceStorm", {revoked: bend(0, 1)}, severity=TICKET),
        quiet("RebalanceStorm", "at a rollout", {revoked: step(4, last=5)}),
        quiet("RebalanceStorm", "at a rollout of many", rollout),
        firing("FenceRejections", {fenced: step(1, last=5)}, severity=TICKET),
        quiet("FenceRejections", "at an old one", {fenced: step(1)}),
        firing("SinkCircuitOpen", {circuit: step(1)}),
        quiet("SinkCircuitOpen", "at a short one", {circuit: step(1, last=2)}),
        firing("ForwardRefused", {refused: bend(0, 1)}),
        firing("ForwardRefused", {refused: f"_x50 {rising(1, 11, start=1)}"}),
        quiet("ForwardRefused", "while the endpoint is away", {away: bend(0, 1)}),
        quiet("ForwardRefused", "at an old one", {refused: step(1)}),
        firing("Hl7v2Refused", {nak: bend(0, 1)}),
        quiet("Hl7v2Refused", "when one message is refused", {of_one: bend(0, 1)}),
        quiet("Hl7v2Refused", "at an old one", {nak: step(1)}),
        firing("WorkflowRefused", {denied: bend(0, 1)}),
        quiet("WorkflowRefused", "when workflows have ended", {late: bend(0, 1)}),
        quiet("WorkflowRefused", "at an old one", {denied: step(1)}),
        firing("WorkflowTimersLate", {checked: flat(0, HOUR)}),
        quiet("WorkflowTimersLate", "while they are looked at", {checked: rising(60, HOUR)}),
        firing("FhirRefused", {unknown: bend(0, 1)}),
        firing("FhirRefused", {unknown: f"_x50 {rising(1, 11, start=1)}"}),
        quiet("FhirRefused", "at what is written for the first time", {new: bend(0, 1)}),
        quiet("FhirRefused", "at an old one", {unknown: step(1)}),
        firing("ParkedKeysGrowing", {keys: step(1), oldest: rising(60, HOUR, start=-1800)}, severity=TICKET),
        firing("ParkedKeysGrowing", {keys: flat(1, HOUR), oldest: rising(60, HOUR, start=600)}, also="ticket"),
        quiet("ParkedKeysGrowing", "when it is released", {keys: f"{flat(1, HALF)} {flat(0, REST)}"}),
        firing("ParkBreakerOpen", {at("park_breaker_open", CONSUMER): step(1)}),
        quiet(
            "ParkBreakerOpen",
            "when it was resumed",
            {at("park_breaker_open", CONSUMER): f"{flat(1, HALF)} {flat(0, REST)}"},
        ),
        firing("ParkingFull", {full: step(1)}),
        quiet("ParkingFull", "when there is room again", {full: f"{flat(1, HALF)} {flat(0, REST)}"}),
        firing("OutboxStuck", {outbox: rising(60, HALF + REST)}),
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
