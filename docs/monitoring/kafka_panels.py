"""What the dashboard of Kafka and the spool shows."""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from docs.monitoring.panel import (
    SPOOLED,
    Panel,
    most,
    quantile,
    rates,
    total,
)

KAFKA = (
    Panel(
        "Records by Kafka's answer",
        "Anything but acknowledged is spooled or refused.",
        "ops",
        {"{{topic}} {{outcome}}": rates("produce_total", "topic, outcome")},
    ),
    Panel(
        "Time to an acknowledgement",
        "99 %.",
        "s",
        {"{{topic}}": quantile(0.99, "produce_duration_seconds", by="topic")},
    ),
    Panel(
        "Producer",
        "1 for the state that it is in.",
        "short",
        {"{{instance}} {{state}}": most("producer_state", "instance, state")},
    ),
    Panel(
        "Oldest record not acknowledged",
        "Above half of the deadline it is spooled.",
        "s",
        {"{{instance}}": most("oldest_unacked_seconds", "instance")},
    ),
    SPOOLED,
    Panel(
        "Use of the spool",
        "Used share; when full, deliveries are answered 503.",
        "percentunit",
        {"{{instance}}": f"{total('spool_bytes', 'instance')} / ({total('spool_capacity_bytes', 'instance')} > 0)"},
    ),
    Panel(
        "Age of the oldest event on disk",
        "It falls while it drains.",
        "s",
        {"{{instance}}": f"time() - ({most('spool_oldest_event_timestamp_seconds', 'instance')} > 0)"},
    ),
    Panel(
        "Spooling partitions",
        "Blocked ones have a record that Kafka refuses.",
        "short",
        {
            "{{instance}} spooling": total("spooling_partitions", "instance"),
            "{{instance}} blocked": total("spool_blocked_partitions", "instance"),
        },
    ),
    Panel(
        "Time of an fsync",
        "99 %.",
        "s",
        {"{{instance}}": quantile(0.99, "spool_fsync_duration_seconds", by="instance")},
    ),
    Panel(
        "Damage and locks",
        "Damaged records, records without a key, torn tails, and segments that the disk cannot read.",
        "short",
        {
            "damaged {{instance}}": total("spool_corrupt_records_total", "instance"),
            "damaged and not copied {{instance}}": total("spool_uncopied_ranges", "instance"),
            "locked {{instance}}": total("spool_locked_records", "instance"),
            "unread {{instance}}": total("spool_unread_segments", "instance"),
            "torn tails {{instance}}": total("spool_torn_tails_total", "instance"),
        },
    ),
    Panel(
        "Ids remembered",
        "So that a repeat is not written again.",
        "short",
        {"{{instance}}": most("dedupe_ids", "instance")},
    ),
    Panel(
        "Ids of other replicas",
        "How far behind the topics are read; empty if they are not followed.",
        "s",
        {"{{instance}}": most("dedupe_follow_lag_seconds", "instance")},
    ),
    Panel(
        "Late acknowledgements",
        "After the sender had received another answer.",
        "ops",
        {"{{instance}}": rates("late_acks_total", "instance")},
    ),
)
