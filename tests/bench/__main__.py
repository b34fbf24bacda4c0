"""`python -m tests.bench`: the ingress compared with a naive control, and the cost of other parts.

With `ingress` (and its peers, after `make peers`), `outage` (without Kafka), `consumers` (the read model), `forward`,
`archive` or `fhir` (where its server is) only that part, with `quick` fewer rounds.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import psutil
from rich.console import Console

from tests.bench import archive, fhir, forward, ingress, outage, read_model
from tests.bench.report import table
from tests.fhir import hapi

RESULTS = Path("build/bench")
PARTS: Mapping[str, Any] = {
    "ingress": ingress,
    "outage": outage,
    "consumers": read_model,
    "forward": forward,
    "fhir": fhir,
    "archive": archive,
}


def main(arguments: list[str]) -> None:
    console, progress = Console(), Console(stderr=True)
    wanted = [each for each in arguments if each != "quick"]
    if set(wanted) - set(PARTS):
        sys.exit(f"usage: python -m tests.bench [{'|'.join(PARTS)}] [quick]")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in wanted or [each for each in PARTS if each != "fhir" or hapi.is_built()]:
        part, result = PARTS[name], RESULTS / f"{name}.json"
        machine = {"cpus": os.cpu_count(), "load_1m": psutil.getloadavg()[0]}
        figures = part.run(progress, quick="quick" in arguments)
        console.print(table((part.__doc__ or "").splitlines()[0], figures))
        result.write_bytes(orjson.dumps({"machine": machine, **figures}, option=orjson.OPT_INDENT_2))
        console.print(f"figures: {result}")


if __name__ == "__main__":
    main(sys.argv[1:])
