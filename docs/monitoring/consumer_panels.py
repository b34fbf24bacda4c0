"""What the dashboard of the consumers shows."""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from docs.monitoring.panel import (
    APPLIED,
    LAG,
    Panel,
    most,
    quantile,
    rates,
    total,
)

CONSUMERS = (
    Panel(
        "Records by outcome",
        "Applied is the normal outcome.",
        "ops",
        {"{{service}} {{outcome}}": rates("consumer_records_total", "service, outcome")},
    ),
    LAG,
    Panel(
        "Lag in records",
        "Records not settled yet.",
        "short",
        {"{{service}} {{topic}}": total("consumer_lag_records", "service, topic")},
    ),
    APPLIED,
    Panel(
        "From the sender's time to applied",
        "Includes the time that the sender takes.",
        "s",
        {"{{service}} 99 %": quantile(0.99, "freshness_seconds", by="service", more='segment="end_to_end"')},
    ),
    Panel(
        "Partitions",
        "Assigned to members, and not read now.",
        "short",
        {
            "{{service}} assigned": total("consumer_assigned_partitions", "service"),
            "{{service}} paused": total("consumer_paused_partitions", "service"),
        },
    ),
    Panel(
        "Rebalances",
        "`lost` means that a member did not answer.",
        "ops",
        {"{{service}} {{kind}}": rates("consumer_rebalances_total", "service, kind")},
    ),
    Panel(
        "In flight", "Records accepted and not settled.", "short", {"{{service}}": total("inflight_records", "service")}
    ),
    Panel(
        "Parked",
        "Keys, and the events that wait behind them.",
        "short",
        {"{{service}} keys": most("parked_keys", "service"), "{{service}} events": most("parked_events", "service")},
    ),
    Panel(
        "Failures",
        "Keys parked, by class of failure.",
        "ops",
        {
            "{{service}} parked {{class}}": f"{rates('park_total', 'service, class')} > 0",
        },
    ),
    Panel(
        "Circuit",
        "1 for the state that it is in; open means that the target is away.",
        "short",
        {"{{service}} {{state}}": most("circuit_state", "service, state", 'state!="closed"')},
    ),
    Panel(
        "Requests of forward",
        "Attempts by code; `ok` is the normal one.",
        "reqps",
        {"{{service}} {{code}}": rates("forward_requests_total", "service, code")},
    ),
    Panel(
        "Time to the answer of an endpoint",
        "Of the requests of forward, 99 %.",
        "s",
        {"{{service}}": quantile(0.99, "forward_request_duration_seconds", by="service")},
    ),
    Panel(
        "Requests of fhir",
        "By code; `http_404` is the answer for what is written for the first time.",
        "reqps",
        {"{{service}} {{code}}": rates("fhir_requests_total", "service, code")},
    ),
    Panel(
        "Time to the answer of a FHIR server",
        "Of the requests of fhir, 99 %.",
        "s",
        {"{{service}}": quantile(0.99, "fhir_request_duration_seconds", by="service")},
    ),
    Panel(
        "Conflicts at a FHIR server",
        "Writes that met another version, and events left alone because somebody deleted a resource.",
        "short",
        {
            "{{service}} conflicts": rates("fhir_conflicts_total", "service"),
            "{{service}} deleted": rates("fhir_deleted_total", "service"),
        },
    ),
    Panel(
        "Messages of hl7v2",
        "Attempts by acknowledgement; `ok` is the normal one.",
        "reqps",
        {"{{service}} {{code}}": rates("hl7v2_requests_total", "service, code")},
    ),
    Panel(
        "Time to the acknowledgement of hl7v2",
        "99 %.",
        "s",
        {"{{service}}": quantile(0.99, "hl7v2_request_duration_seconds", by="service")},
    ),
    Panel(
        "Rows of archive",
        "Staged by its members; files are published some seconds later.",
        "ops",
        {"{{service}}": rates("archive_staged_rows_total", "service")},
    ),
    Panel(
        "Files of archive",
        "Staged and published; many small ones mean that events come thinly or `wait_s` is short.",
        "ops",
        {
            "{{service}} staged": rates("archive_staged_files_total", "service"),
            "{{service}} published": rates("archive_published_files_total", "service"),
        },
    ),
    Panel(
        "Age of what readers see of the lake",
        "Since every committed file was last seen to be published.",
        "s",
        {"{{service}}": f"time() - {most('archive_current_timestamp_seconds', 'service')}"},
    ),
    Panel(
        "Calls of workflow",
        "Attempts by answer; `ok` is the normal one, `late` that of a workflow that has ended.",
        "reqps",
        {"{{service}} {{code}}": rates("workflow_requests_total", "service, code")},
    ),
    Panel(
        "Time to the answer of a workflow server",
        "Of the calls of workflow, 99 %.",
        "s",
        {"{{service}}": quantile(0.99, "workflow_request_duration_seconds", by="service")},
    ),
    Panel(
        "Timers of workflow",
        "Workflows started for what waits too long, and told that it does no more.",
        "short",
        {"{{service}} {{kind}} {{outcome}}": rates("workflow_timers_total", "service, kind, outcome")},
    ),
    Panel("Time of a commit", "To Kafka, 99 %.", "s", {"{{service}}": quantile(0.99, "commit_seconds", by="service")}),
)
