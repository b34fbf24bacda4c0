"""Mutants of the pure modules, which the tests must find: `make mutants`, or `python -m tests.mutants PATTERN…`.

mutmut changes one thing at a time and runs the tests that reach it, in a copy in `build/mutants`; `mutmut show NAME`
there shows a mutant. Its settings are in `pyproject.toml`. The modules are those that import-linter checks to be pure,
or those of them that match a pattern, such as `bridge.spool.*`; `--sample N` draws N mutants of each. A mutant that
survives runs again in a process that imports its module anew, since modules and tests compile things at import.
Mutants that the type checker refuses count neither as found nor as survived. `mutants.toml` lists the mutants that may
survive, with reasons: the run fails if another one survives, or if a listed one is found.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path

ROOT = Path(__file__).parent.parent
AT = ROOT / "build" / "mutants"
PURE = "deciding is pure"
# Exit codes that mutmut stores: pytest's, no test, not run, refused by types.
SURVIVED, REFUSED = (0, 5, 33, None), 37


def main(arguments: Sequence[str]) -> int:
    """Run the mutants; return 1 if one survived that is not listed, or a listed one did not."""
    parser = ArgumentParser(prog="tests.mutants")
    parser.add_argument("patterns", nargs="*", default="*")
    parser.add_argument("--sample", type=int, metavar="N", help="draw N mutants of each module")
    options = parser.parse_args(arguments)
    _copy(options.patterns)
    create = [sys.executable, "-c", "from mutmut.__main__ import create_mutants; create_mutants(2)"]
    subprocess.run(create, cwd=AT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - this program
    # By hash: the draw of a module stays the same while the module does.
    order = sorted(_codes(), key=lambda name: (_module(name), sha256(name.encode()).digest()))
    drawn = {name for _, of in groupby(order, _module) for name in islice(of, options.sample)}
    _run(drawn if options.sample else ())
    if again := {name for name, code in _codes().items() if code == 0}:
        settings = (AT / "pyproject.toml").read_text()
        anew = settings.replace("[tool.mutmut]\n", '[tool.mutmut]\nforkserver_warmup = "none"\n')
        (AT / "pyproject.toml").write_text(anew)
        _run(again)
    judged = {name: code for name, code in _codes().items() if name in drawn and code != REFUSED}
    survived = {name for name, code in judged.items() if code in SURVIVED}
    of, found = Counter(map(_module, judged)), Counter(map(_module, judged.keys() - survived))
    functions = tomllib.loads(Path(__file__).with_suffix(".toml").read_text()).values()
    listed = {f"{name}__mutmut_{each}" for table in functions for name, numbers in table.items() for each in numbers}
    listed &= drawn if options.sample else {name for name in listed if _module(name) in of}
    for text, names in (("survived, and is not listed", survived - listed), ("listed", listed - survived)):
        sys.stdout.writelines(f"{text}: {name}\n" for name in sorted(names))
    sys.stdout.writelines(f"{module}: {found[module]} of {count}\n" for module, count in sorted(of.items()))
    sys.stdout.write(f"{found.total()} of {len(judged)} found; {len(drawn) - len(judged)} refused by types\n")
    return int(survived != listed)


def _run(mutants: Iterable[str]) -> None:
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["mutmut", "run", *mutants], cwd=AT, env=environ, check=True)  # noqa: S603, S607 - that of this environment


def _codes() -> dict[str, int | None]:
    codes: dict[str, int | None] = {}
    for file in (AT / "mutants").rglob("*.meta"):
        codes |= json.loads(file.read_text())["exit_code_by_key"]
    return codes


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _copy(patterns: Sequence[str]) -> None:
    """Copy git's files, and set the modules in the settings of the copy."""
    shutil.rmtree(AT, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
    tracked = listed.stdout.splitlines()
    for name in tracked:
        (AT / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, AT / name)
    settings = (ROOT / "pyproject.toml").read_text()
    (pure,) = (each for each in tomllib.loads(settings)["tool"]["importlinter"]["contracts"] if PURE in each["name"])
    globs = [name.replace(".", "/") + tail for name in pure["source_modules"] for tail in (".py", "/**/*.py")]
    files = [str(file.relative_to(ROOT)) for each in globs for file in ROOT.glob(each)]
    chosen = [file for file in files if any(fnmatch(file[:-3].replace("/", "."), each) for each in patterns)]
    more = {"also_copy": sorted({name.partition("/")[0] for name in tracked}), "only_mutate": chosen}
    lines = "".join(f"{name} = {value}\n" for name, value in more.items())
    (AT / "pyproject.toml").write_text(settings.replace("[tool.mutmut]\n", f"[tool.mutmut]\n{lines}"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
