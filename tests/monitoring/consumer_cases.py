"""Cases of the consumers."""

from tests.monitoring.case import HALF, HOUR, REST, TICKET, Case, Span, at, bend, firing, quiet, step
from tests.monitoring.series import ARCHIVE, CONSUMER, READER, WORKFLOW, flat, rising


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
        # Also where the timestamp is set anew at every restart.
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
