"""`forward` from topic to settled records, against an endpoint that takes 10 ms for each."""

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from bridge.dev.ports import HOST, free_port, is_free
from bridge.dev.processes import Child
from tests.bench.consuming import servers
from tests.bench.sending import TOPICS, Sending
from tests.installed import ROOT

ANSWER_S = 0.01
SENDING = Sending("forward", "lanes", records={8: 7_000, 64: 30_000})


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    with servers(TOPICS) as place:
        (place.directory / "secrets").mkdir()
        (place.directory / "secrets" / "current").write_text(f"whsec_{base64.b64encode(bytes(32)).decode()}")
        port = free_port()
        endpoint = Child(
            "endpoint",
            command=[sys.executable, "-m", "tests.bench.endpoint", str(port), str(ANSWER_S)],
            cwd=ROOT,
            log=place.directory / "endpoint.log",
        )

        @contextmanager
        def settings(lanes: int) -> Iterator[dict[str, str]]:
            yield {
                "FORWARD__URL": f"http://{HOST}:{port}/desk",
                "FORWARD__ALLOW_HTTP": "true",
                "FORWARD__SECRETS_DIR": str(place.directory / "secrets"),
                "FORWARD__LANES": str(lanes),
            }

        endpoint.start()
        try:
            endpoint.wait_until(lambda: not is_free(port))
            return SENDING.run(console, place, settings, quick=quick)
        finally:
            endpoint.stop()
