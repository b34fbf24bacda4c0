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
        "Error budget burn",
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
        "If heartbeats arrive, the sender is silent.",
        "s",
        {"{{source}}": f"time() - ({most('source_last_event_timestamp_seconds', 'source')} > 0)"},
    ),
    Panel("Parked keys", "Parked until an operator decides.", "short", {"{{service}}": most("parked_keys", "service")}),
    Panel(
        "Safety signals", "Each one concerns a patient.", "short", {"{{kind}}": total("safety_signals_total", "kind")}
    ),
)

INGRESS = (
    DELIVERIES,
    ANSWERS,
    Panel(
        "Refusals by code",
        "To be repaired by the sender.",
        "reqps",
        {"{{code}}": rates("http_requests_total", "code", 'outcome="refused"')},
    ),
    Panel(
        "Unavailable by code",
        "To be repaired here.",
        "reqps",
        {"{{code}}": rates("http_requests_total", "code", 'outcome="unavailable"')},
    ),
    Panel(
        "Failed signatures",
        "Shows a failed rotation.",
        "ops",
        {"{{reason}}": rates("signature_failures_total", "reason")},
    ),
    Panel(
        "Verified signatures by secret",
        "A rotation is complete when only the current one is used.",
        "ops",
        {"{{key_slot}}": rates("signature_verified_total", "key_slot")},
    ),
    Panel(
        "Clock of senders",
        "How far timestamps of deliveries are off.",
        "s",
        {
            "50 %": quantile(0.5, "provider_clock_offset_seconds"),
            "99 %": quantile(0.99, "provider_clock_offset_seconds"),
        },
    ),
    Panel(
        "Used share of the deadline",
        "At 1 the deadline is over.",
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
        "A sender uses a newer contract.",
        "ops",
        {"{{event_type}}": f"{rates('extension_fields_total', 'event_type')} > 0"},
    ),
    Panel(
        "In progress",
        "Deliveries not answered yet, and connections.",
        "short",
        {
            "deliveries {{instance}}": total("http_inflight_requests", "instance"),
            "connections {{instance}}": total("http_open_connections", "instance"),
        },
    ),
    Panel(
        "Connections ended",
        "By the bridge; `too_many` and `bodies_full` mean that a limit was reached.",
        "ops",
        {"{{reason}}": rates("http_connections_ended_total", "reason")},
    ),
    Panel(
        "Lateness of the event loop",
        "Above 100 ms answers are delayed.",
        "s",
        {"{{instance}} 99 %": quantile(0.99, "event_loop_lag_seconds", by="instance")},
    ),
    Panel(
        "Log lines dropped",
        "Lines not written to standard output.",
        "short",
        {"{{instance}}": f"sum by (instance) (increase({series('log_dropped_total')}[{RATE}]))"},
    ),
    Panel(
        "Memory and CPU",
        "Of each process.",
        "short",
        {
            "MiB {{instance}}": ours('process_resident_memory_bytes{namespace=~"$namespace"} / 1048576'),
            "cores {{instance}}": ours(f'rate(process_cpu_seconds_total{{namespace=~"$namespace"}}[{RATE}])'),
        },
    ),
    Panel(
        "Until the last secret expires",
        "A page at three days.",
        "s",
        {"{{source}}": f"min by (source) ({series('secret_expiry_timestamp_seconds')}) - time()"},
    ),
)
