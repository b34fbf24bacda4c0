"""What the dashboards of the ingress show, and the overview."""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from docs.monitoring.panel import (
    ANSWERS,
    APPLIED,
    DELIVERIES,
    LAG,
    RATE,
    SPOOLED,
    Panel,
    burn,
    most,
    ours,
    quantile,
    rates,
    series,
    total,
)

OVERVIEW = (
    DELIVERIES,
    ANSWERS,
    Panel(
        "Budgets being spent",
        "1 spends a budget in exactly thirty days; alerts begin at 14.4 over an hour.",
        "short",
        {"{{slo}} {{service}}": burn(".*", "1h", "slo, service")},
    ),
    APPLIED,
    SPOOLED,
    LAG,
    Panel(
        "Since the last heartbeat",
        "An alert fires at 120 s.",
        "s",
        {"{{instance}}": f"time() - {most('heartbeat_last_seen_timestamp_seconds', 'instance')}"},
    ),
    Panel(
        "Since the last event of a source",
        "Silence with a good heartbeat is the sender's.",
        "s",
        {"{{source}}": f"time() - ({most('source_last_event_timestamp_seconds', 'source')} > 0)"},
    ),
    Panel("Parked keys", "Set aside until somebody decides.", "short", {"{{service}}": most("parked_keys", "service")}),
    Panel("Safety signals", "Each one is a patient.", "short", {"{{kind}}": total("safety_signals_total", "kind")}),
)

INGRESS = (
    DELIVERIES,
    ANSWERS,
    Panel(
        "Refusals by code",
        "What is the sender's to repair.",
        "reqps",
        {"{{code}}": rates("http_requests_total", "code", 'outcome="refused"')},
    ),
    Panel(
        "Unavailable by code",
        "What is ours to repair.",
        "reqps",
        {"{{code}}": rates("http_requests_total", "code", 'outcome="unavailable"')},
    ),
    Panel(
        "Failed proofs",
        "A rotation that went wrong shows here.",
        "ops",
        {"{{reason}}": rates("signature_failures_total", "reason")},
    ),
    Panel(
        "Proofs by secret",
        "A rotation is over when only the current one is used.",
        "ops",
        {"{{key_slot}}": rates("signature_verified_total", "key_slot")},
    ),
    Panel(
        "Clock of senders",
        "How far deliveries' times are off.",
        "s",
        {
            "50 %": quantile(0.5, "provider_clock_offset_seconds"),
            "99 %": quantile(0.99, "provider_clock_offset_seconds"),
        },
    ),
    Panel(
        "Part of the deadline that is used",
        "At 1 the sender has gone.",
        "percentunit",
        {"99 %": quantile(0.99, "sender_time_budget_ratio")},
    ),
    Panel(
        "Parked deliveries",
        "Verified, and no events of the contract.",
        "ops",
        {"{{source}} {{reason}}": rates("unrecognized_total", "source, reason")},
    ),
    Panel(
        "Fields outside the contract",
        "A sender that is ahead of this version.",
        "ops",
        {"{{event_type}}": f"{rates('extension_fields_total', 'event_type')} > 0"},
    ),
    Panel(
        "In hand",
        "Deliveries taken in and not answered, and connections.",
        "short",
        {
            "deliveries {{instance}}": total("http_inflight_requests", "instance"),
            "connections {{instance}}": total("http_open_connections", "instance"),
        },
    ),
    Panel(
        "Connections ended",
        "By the bridge; `too_many` and `bodies_full` mean that a bound was met.",
        "ops",
        {"{{reason}}": rates("http_connections_ended_total", "reason")},
    ),
    Panel(
        "Lateness of the event loop",
        "Above 100 ms answers suffer.",
        "s",
        {"{{instance}} 99 %": quantile(0.99, "event_loop_lag_seconds", by="instance")},
    ),
    Panel(
        "Log lines dropped",
        "What standard output did not take.",
        "short",
        {"{{instance}}": f"sum by (instance) (increase({series('log_dropped_total')}[{RATE}]))"},
    ),
    Panel(
        "Memory and processor",
        "Of each process.",
        "short",
        {
            "MiB {{instance}}": ours('process_resident_memory_bytes{namespace=~"$namespace"} / 1048576'),
            "cores {{instance}}": ours(f'rate(process_cpu_seconds_total{{namespace=~"$namespace"}}[{RATE}])'),
        },
    ),
    Panel(
        "Until the last secret ends",
        "A page at three days.",
        "s",
        {"{{source}}": f"min by (source) ({series('secret_expiry_timestamp_seconds')}) - time()"},
    ),
)
