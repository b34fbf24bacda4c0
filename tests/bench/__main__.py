"""`python -m tests.bench`: the ingress against a naive control, and what else costs something here.

With `ingress`, `outage` (without Kafka), `dedupe` (remembering ids), `follow` (those of other replicas), `spool` (the
store alone), `consumers` (the read model), `forward` or `fhir` (where a HAPI server is) only that part, with `quick`
fewer rounds, and with `stages` instead of all this what each stage of a delivery costs, with `dialects` what the
profiles of vendors do.
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
    dedupe,
    dialects,
    fhir,
    follow,
    forward,
    ingress,
    outage,
    read_model,
    report,
    report_read_model,
    spool,
    stages,
)
from tests.fhir.hapi import is_built

RESULTS = Path("build/bench")
PARTS = ("ingress", "outage", "dedupe", "follow", "spool", "consumers", "forward", "fhir")


def main(arguments: list[str]) -> None:  # noqa: C901 - a list of parts
    """Run, print, and keep the figures."""
    console, progress = Console(), Console(stderr=True)
    if arguments in (["stages"], ["dialects"]):
        (stages if arguments == ["stages"] else dialects).run(console)
        return
    wanted = [each for each in arguments if each != "quick"]
    if set(wanted) - set(PARTS):
        sys.exit(f"usage: python -m tests.bench [{'|'.join(PARTS)}] [quick] | stages | dialects")
    quick = "quick" in arguments
    if "ingress" in (wanted or PARTS):
        figures = ingress.run(progress, rounds=1 if quick else ingress.ROUNDS)
        _keep(console, "ingress", figures, report.table(figures))
    if "outage" in (wanted or PARTS):
        figures = outage.run(progress, _results(), quick=quick)
        _keep(console, "outage", figures, outage.table(figures))
    if "dedupe" in (wanted or PARTS):
        figures = dedupe.run(progress)
        _keep(console, "dedupe", figures, dedupe.table(figures))
    if "follow" in (wanted or PARTS):
        figures = follow.run(progress, _results(), quick=quick)
        _keep(console, "follow", figures, follow.table(figures))
    if "spool" in (wanted or PARTS):
        # In the checkout: `/tmp` may be memory, which no fsync costs anything.
        with tempfile.TemporaryDirectory(prefix="spool-", dir=_results()) as directory:
            figures = spool.run(progress, Path(directory), rounds=1 if quick else spool.ROUNDS)
        _keep(console, "spool", figures, spool.table(figures))
    if "consumers" in (wanted or PARTS):
        figures = read_model.run(progress, quick=quick)
        _keep(console, "consumers", figures, report_read_model.table(figures))
    if "forward" in (wanted or PARTS):
        figures = forward.run(progress, quick=quick)
        _keep(console, "forward", figures, forward.table(figures))
    if "fhir" in (wanted or PARTS) and (wanted or is_built()):
        figures = fhir.run(progress, quick=quick)
        _keep(console, "fhir", figures, fhir.table(figures))


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
