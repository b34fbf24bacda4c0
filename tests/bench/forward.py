"""`forward` from topic to settled records, with 64 lanes and an endpoint with a latency of 10 ms."""

import base64
import sys
from typing import Any

from rich.console import Console

from bridge.dev.ports import HOST, free_port, is_free
from bridge.dev.processes import Child
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC
from tests.bench.consuming import ROUNDS, consuming, figures, filled, measured
from tests.installed import ROOT
from tests.topic_filler import Lives

RECORDS = 30_000


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    paces = []
    with filled(Lives.of_records(RECORDS, one_day=True)) as place:
        secrets, port = place.directory / "secrets", free_port()
        secrets.mkdir()
        (secrets / "current").write_text(f"whsec_{base64.b64encode(bytes(32)).decode()}")
        command = [sys.executable, "-m", "tests.bench.endpoint", str(port)]
        endpoint = Child("endpoint", command=command, cwd=ROOT, log=place.directory / "endpoint.log")
        endpoint.start()
        try:
            endpoint.wait_until(lambda: not is_free(port))
            for number in range(1 if quick else ROUNDS):
                settings = {
                    "FORWARD__TOPICS": PRESCRIPTIONS_TOPIC,
                    "FORWARD__INSTANCE": f"n{number}",
                    "FORWARD__URL": f"http://{HOST}:{port}/desk",
                    "FORWARD__ALLOW_HTTP": "true",
                    "FORWARD__SECRETS_DIR": str(secrets),
                    "FORWARD__LANES": "64",
                }
                with consuming(place, "forward", **settings) as (process, _):
                    paces.append(measured(process, RECORDS))
                console.print(f"{paces[-1].per_s:,.0f} events/s {paces[-1].cpu_us:.0f} µs")
        finally:
            endpoint.stop()
    return figures(paces)
