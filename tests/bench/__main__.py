"""`python -m tests.bench`: the ingress against a naive control; with `stages`: what each stage of a delivery costs."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
from rich.console import Console

from tests.bench import ingress, report, stages

RESULT = Path("build/bench/ingress.json")


def main(arguments: list[str]) -> None:
    """Run, print, and keep the figures."""
    console = Console()
    if arguments == ["stages"]:
        stages.run(console)
        return
    if arguments not in ([], ["quick"]):
        sys.exit("usage: python -m tests.bench [quick|stages]")
    figures = ingress.run(Console(stderr=True), rounds=1 if arguments else ingress.ROUNDS)
    console.print(report.table(figures))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    console.print(f"figures: {RESULT}")


if __name__ == "__main__":
    main(sys.argv[1:])
