"""Fuzz the code that reads external bytes: `python -m tests.fuzz [--executions N] [--minimise] [TARGET]...`.

Each target starts from the inputs kept in `corpus/` and those of earlier runs in `build/fuzz/`. An input that breaks a
property is also kept there; `--minimise` moves inputs into `corpus/` that reach code no smaller input reaches.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.targets import TARGETS, Target, read_corpus, write_corpus

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "fuzz"
EXECUTIONS = 1_000_000
# One execution takes milliseconds; what takes this long on a loaded machine hangs.
TIMEOUT_S = 60
RSS_MAX_MIB = 2048
# What libFuzzer prints at the end.
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_REACHED = re.compile(r"cov: (\d+)")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--executions", type=int, default=EXECUTIONS, help="of all targets together")
    parser.add_argument("--minimise", action="store_true", help="rewrite the corpus instead")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(target.name for target in TARGETS))
    if find_spec("atheris") is None:
        parser.error("atheris is not installed, see `make fuzz`; it is made for Linux")
    chosen = parser.parse_args(argv)
    targets = [target for target in TARGETS if not chosen.targets or target.name in chosen.targets]
    if not targets:
        parser.error("no target has that name")
    if chosen.minimise:
        for target in targets:
            minimise(target)
        return 0
    shares = sum(target.share for target in targets)
    return max(fuzz(target, -(-chosen.executions * target.share // shares)) for target in targets)


def fuzz(target: Target, executions: int) -> int:
    inputs = unpacked(target)
    words = BUILD / f"{target.name}.dict"
    words.write_text("".join(map(entry, target.words())))
    options = [f"-runs={executions}", f"-max_len={target.max_bytes}", f"-dict={words}", "-print_final_stats=1"]
    said = run(target, [*options, f"-artifact_prefix={inputs}/", str(inputs)])
    (BUILD / f"{target.name}.log").write_text(said.stderr)
    executed = _EXECUTED.search(said.stderr)
    reached = _REACHED.findall(said.stderr)
    report(
        f"{target.name}: {int(executed[1]) if executed else 0:,} executions, {len(list(inputs.iterdir()))} inputs kept,"
        f" {reached[-1] if reached else 0} branches reached, {'clean' if not said.returncode else 'BROKEN'}"
    )
    if said.returncode:
        report(said.stdout + "\n".join(said.stderr.splitlines()[-30:]))
    return int(said.returncode != 0)


def entry(word: bytes) -> str:
    """Format a string for libFuzzer's dictionaries."""
    escaped = "".join(f"\\x{byte:02x}" for byte in word)
    return f'"{escaped}"\n'


def minimise(target: Target) -> None:
    """Keep the fewest and shortest inputs with the coverage of all inputs of all runs."""
    inputs = unpacked(target)
    with tempfile.TemporaryDirectory() as fewest:
        said = run(target, ["-merge=1", f"-max_len={target.max_bytes}", fewest, str(inputs)])
        if said.returncode:
            report(said.stderr)
            raise SystemExit(1)
        write_corpus(target.corpus, (path.read_bytes() for path in Path(fewest).iterdir()))
    report(f"{target.name}: {len(read_corpus(target.corpus))} inputs, {target.corpus.stat().st_size:,} bytes")


def run(target: Target, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    limits = [f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={RSS_MAX_MIB}"]
    command = [sys.executable, "-m", "tests.fuzz.engine", target.name, *limits, *options]
    return subprocess.run(  # noqa: S603 - ourselves
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
    )


def unpacked(target: Target) -> Path:
    """Return the directory of a target's inputs, with those of the corpus among them."""
    directory = BUILD / target.name
    directory.mkdir(parents=True, exist_ok=True)
    for content in read_corpus(target.corpus):
        (directory / hashlib.sha1(content, usedforsecurity=False).hexdigest()).write_bytes(content)
    return directory


def report(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
