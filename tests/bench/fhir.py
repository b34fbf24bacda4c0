"""`drx-consumer run fhir` from topic to a real HAPI FHIR server: events a second with eight lanes, and memory."""

import sys
from contextlib import ExitStack
from itertools import islice
from typing import Any

from rich.console import Console

from tests.bench.consuming import MIB, consumer, pace, servers
from tests.bench.sending import TOPIC, TOPICS
from tests.fhir.hapi import LONG_RUN, HapiServer, is_built
from tests.postgres import fresh_database
from tests.topic_filler import Lives, fill

NAME = "fhir"
RECORDS, QUICK_RECORDS = 4_000, 2_000
LANES = 8
_APPLIED = "select count(*) from drx_consumer.inbox where grp = $1"


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    if not is_built():
        sys.exit("fhir: no HAPI FHIR server here: `make fhir-server` fetches it")
    count = QUICK_RECORDS if quick else RECORDS
    with servers(TOPICS) as place, ExitStack() as stack:
        hapi = HapiServer(place.directory, options=LONG_RUN)
        stack.callback(hapi.stop)
        hapi.start()
        console.print(f"fhir: {count:,} records, HAPI at {hapi.url}")
        count = fill(place.bootstrap_servers, islice(Lives.of_records(count).records(TOPIC), count))
        with fresh_database(place.dsn) as dsn:
            ours = consumer(
                place.directory,
                NAME,
                bootstrap_servers=place.bootstrap_servers,
                dsn=dsn,
                group=NAME,
                settings={
                    "CONSUMER_FHIR__BASE_URL": hapi.url,
                    "CONSUMER_FHIR__ALLOW_HTTP": "true",
                    "CONSUMER_POSTGRES__POOL_SIZE": str(LANES + 1),
                },
            )
            ours.settled = _APPLIED
            ours.start()
            try:
                samples = ours.watch(dsn, count)
            finally:
                ours.child.kill()
        # The first thousands of writes find a server that compiles itself meanwhile.
        warm = pace([each for each in samples if each.settled > count // 2])
        return {
            "records": count,
            "lanes": LANES,
            "events_per_s": round(warm.per_s),
            "events_per_s_all": round(pace(samples).per_s),
            "cpu_us": round(warm.cpu_us),
            "rss_peak_mib": round(max(each.rss for each in samples) / MIB),
        }
