"""`drx-consumer run fhir` from topic to a real HAPI FHIR server: events a second with eight lanes, and memory."""

import sys
from contextlib import ExitStack
from typing import Any

from rich.console import Console

from tests.bench.consuming import consuming, figures, filled, measured
from tests.fhir.hapi import LONG_RUN, HapiServer, is_built
from tests.topic_filler import Lives

RECORDS, QUICK_RECORDS = 4_000, 2_000


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    if not is_built():
        sys.exit("fhir: no HAPI FHIR server here: `make fhir-server` fetches it")
    with filled(Lives.of_records(QUICK_RECORDS if quick else RECORDS)) as place, ExitStack() as stack:
        hapi = HapiServer(place.directory, options=LONG_RUN)
        stack.callback(hapi.stop)
        hapi.start()
        console.print(f"fhir: {place.written:,} records, HAPI at {hapi.url}")
        settings = {"FHIR__BASE_URL": hapi.url, "FHIR__ALLOW_HTTP": "true", "POSTGRES__POOL_SIZE": "9"}
        process, _ = stack.enter_context(consuming(place, "fhir", **settings))
        # The first thousands of writes find a server that compiles itself meanwhile.
        found = measured(process, place.written, after=place.written // 2)
        return {"records": place.written, **figures([found])}
