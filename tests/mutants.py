"""Mutants of the pure modules, which the tests must find: `make mutants`, or `python -m tests.mutants PATTERN…`.

mutmut changes one thing at a time and runs the tests that reach it, in a copy in `build/mutants`; `mutmut show NAME`
there shows a mutant. Its settings are in `pyproject.toml`. The modules are those that import-linter checks to be pure,
or those of them that match a pattern, such as `bridge.spool.*`. Mutants that the type checker refuses count neither as
found nor as survived. `mutants.toml` lists the mutants that may survive, with reasons: the run fails if another one
survives, or if a listed one is found.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parent.parent
AT = ROOT / "build" / "mutants"
PURE = "deciding is pure"
# Exit codes that mutmut stores: pytest's, no test, not run, refused by types.
SURVIVED, REFUSED = (0, 5, 33, None), 37


def main(patterns: Sequence[str]) -> int:
    """Run the mutants; return 1 if one survived that is not listed, or a listed one did not."""
    _copy(patterns or "*")
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["mutmut", "run"], cwd=AT, env=environ, check=True)  # noqa: S607 - that of this environment
    codes: dict[str, int | None] = {}
    for file in (AT / "mutants").rglob("*.meta"):
        codes |= json.loads(file.read_text())["exit_code_by_key"]
    judged = {name for name, code in codes.items() if code != REFUSED}
    survived = {name for name in judged if codes[name] in SURVIVED}
    functions = tomllib.loads(Path(__file__).with_suffix(".toml").read_text()).values()
    listed = {f"{name}__mutmut_{each}" for of in functions for name, numbers in of.items() for each in numbers}
    listed = {name for name in listed if name.rpartition(".")[0] in {each.rpartition(".")[0] for each in codes}}
    for text, names in (("survived, and is not listed", survived - listed), ("listed", listed - survived)):
        sys.stdout.writelines(f"{text}: {name}\n" for name in sorted(names))
    sys.stdout.write(f"{len(judged - survived)} of {len(judged)} found; {len(codes) - len(judged)} refused by types\n")
    return int(survived != listed)


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
