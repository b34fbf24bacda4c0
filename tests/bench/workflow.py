"""`workflow` from topic to started workflows, against Temporal's test server on loopback."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench.consuming import servers
from tests.bench.sending import TOPICS, Sending
from tests.temporal.server import TemporalServer

# It has eight lanes, always.
SENDING = Sending("workflow", "a Temporal test server on loopback", "lanes", records={8: 12_000}, goals={8: 300})
# Each event starts a workflow of its own: what is measured is the starts.
RULES = """
task_queue = "bench"
[[rule]]
types = ["*"]
do = "start"
workflow = "Bench"
id = "{source}:{event_id}"
"""
table = SENDING.table


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure all; two minutes."""
    with servers(TOPICS) as place:
        rules = place.directory / "rules.toml"
        rules.write_text(RULES)

        @contextmanager
        def settings(_lanes: int) -> Iterator[dict[str, str]]:
            with (
                tempfile.TemporaryDirectory() as directory,
                TemporalServer(Path(directory), options=("-Xmx1g",)) as server,
            ):
                yield {
                    "WORKFLOW__ADDRESS": server.address,
                    "WORKFLOW__ALLOW_PLAINTEXT": "true",
                    "WORKFLOW__NAMESPACE": "bench",
                    "WORKFLOW__RULES": str(rules),
                    "WORKFLOW__TIMERS": "off",
                }

        return SENDING.run(console, place, settings, quick=quick)
