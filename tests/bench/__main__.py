"""`python -m tests.bench`: the ingress against a naive control, and what else costs something here.

With `ingress`, `scale` (replicas, brokers, millions of deliveries), `outage` (without Kafka), `dedupe` (remembering
ids), `clients` (of Kafka, alone), `spool` (the store alone), `consumers` (the read
model), `forward`, `hl7v2`, `archive`, `workflow` or `fhir` (where their servers are) only that part, with `quick` fewer
rounds, and with `stages` instead of all this what each stage of a delivery costs, with `dialects` what the profiles of
vendors do.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from tests.bench import (
    archive,
    clients,
    dedupe,
    dialects,
    fhir,
    forward,
    hl7v2,
    ingress,
    outage,
    read_model,
    report,
    report_read_model,
    scale,
    spool,
    stages,
    workflow,
)
from tests.fhir import hapi
from tests.temporal import server as temporal

RESULTS = Path("build/bench")
CONSUMERS = {"forward": forward, "fhir": fhir, "hl7v2": hl7v2, "archive": archive, "workflow": workflow}
# What a part needs that may not be there.
SERVERS = {"fhir": hapi.is_built, "workflow": temporal.is_built}
PARTS = ("ingress", "scale", "outage", "dedupe", "clients", "spool", "consumers", *CONSUMERS)


def main(arguments: list[str]) -> None:
    """Run, print, and keep the figures."""
    console, progress = Console(), Console(stderr=True)
    if arguments in (["stages"], ["dialects"]):
        (stages if arguments == ["stages"] else dialects).run(console)
        return
    wanted = [each for each in arguments if each != "quick"]
    if set(wanted) - set(PARTS):
        sys.exit(f"usage: python -m tests.bench [{'|'.join(PARTS)}] [quick] | stages | dialects")
    quick = "quick" in arguments
    for part in wanted or [each for each in PARTS if SERVERS.get(each, lambda: True)()]:
        figures, shown = _measured(part, progress, quick=quick)
        _keep(console, part, figures, shown)


def _measured(part: str, progress: Console, *, quick: bool) -> tuple[dict[str, Any], Table]:
    match part:
        case "ingress":
            figures = ingress.run(progress, rounds=1 if quick else ingress.ROUNDS)
            return figures, report.table(figures)
        case "outage" | "clients":
            kept = {"outage": outage, "clients": clients}[part]
            figures = kept.run(progress, _results(), quick=quick)
            return figures, kept.table(figures)
        case "dedupe":
            figures = dedupe.run(progress)
            return figures, dedupe.table(figures)
        case "spool":
            # In the checkout: `/tmp` may be memory, which no fsync costs anything.
            with tempfile.TemporaryDirectory(prefix="spool-", dir=_results()) as directory:
                figures = spool.run(progress, Path(directory), rounds=1 if quick else spool.ROUNDS)
            return figures, spool.table(figures)
        case "consumers":
            figures = read_model.run(progress, quick=quick)
            return figures, report_read_model.table(figures)
        case _:
            plain = {"scale": scale, **CONSUMERS}[part]
            figures = plain.run(progress, quick=quick)
            return figures, plain.table(figures)


def _keep(console: Console, part: str, figures: dict[str, Any], table: Table) -> None:
    result = _results() / f"{part}.json"
    console.print(table)
    result.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    console.print(f"figures: {result}")


def _results() -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    return RESULTS


if __name__ == "__main__":
    main(sys.argv[1:])
