"""The size and cost of the project, compared with its limits: `python -m tests.budget`, part of `make check`.

The limits are in `budget.toml`. They only go down (`--lower` writes lower current values); raising one needs a separate
commit with the reason. Times depend on the machine: they are CPU times, divided by the speed of this machine, at that
moment, relative to that of the limits. The median of several runs is taken, and limits have a margin.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Mapping
from math import ceil
from pathlib import Path
from statistics import median
from types import MappingProxyType

import click
import psutil
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from bridge.dev.ports import free_port
from docs.folders import folders
from docs.settings_page import options_of, shared_options

ROOT = Path(__file__).parent.parent
BOUNDS = ROOT / "tests" / "budget.toml"
RUNS = 7
# CPU time of `REFERENCE` on the machine where the limits in seconds were measured.
REFERENCE = "import asyncio, decimal, email.message, http.client, json, xml.dom.minidom"
REFERENCE_S = 0.07
# Margin for a loaded machine, measured with eight busy processes; `--lower` keeps it.
MARGIN = MappingProxyType({"MiB": 1.03, "s": 1.5})
# Bounds of memory and CPU are those of Python 3.11; 3.13 takes 4 MiB more.
IS_MEASURED = sys.version_info < (3, 12)
# Limits are rounded up to multiples of these, so that one added line does not fail and two changes do not conflict.
STEPS = MappingProxyType({"lines": 250, "lines that serve loads": 250, "settings": 5, "verbs": 2})
READY_WITHIN_S = 60
# `serve`, which writes its loaded modules at its end.
_SERVE = """
import atexit, sys
from pathlib import Path
atexit.register(lambda: Path(sys.argv[1]).write_text("\\n".join(
    file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None)))))
from bridge.cli import cli
cli(["serve"])
"""


def measured() -> dict[str, float]:
    loaded, rss_mib, ready_s = _serve()
    return {
        "product lines": _lines(ROOT.glob("bridge/**/*.py")) + _lines(ROOT.glob("consumers/**/*.py")),
        "bridge lines": _lines(ROOT.glob("bridge/**/*.py")),
        "consumers lines": _lines(ROOT.glob("consumers/**/*.py")),
        "lines that serve loads": _lines(loaded),
        "test lines": _lines(ROOT.glob("tests/**/*.py")),
        "golden lines": _lines(ROOT.glob("tests/chart/golden/**/*.yaml")),
        "settings": _settings(),
        "verbs": _verbs(),
        "alerts that page": _pages(),
        "idle serve, MiB": rss_mib,
        "serve to ready, s of CPU": ready_s,
        "help of a verb, s of CPU": max(_help_s(name, verb) for name, verb in _SLOW_HELP),
    }


# For each program the command whose help imports most.
_SLOW_HELP = (("drx-bridge", "tail"), ("drx-bridge", "serve"), ("drx-consumer", "parked"))


def _lines(files: Iterable[Path]) -> int:
    return sum(file.read_bytes().count(b"\n") for file in files if "__pycache__" not in file.parts)


def _settings() -> int:
    """Count the settings; those shared by ingress and consumers, or by several consumers, count once."""
    pages = (ROOT / "docs" / name for name in ("settings.md", "consumer-settings.md"))
    listed = sum(
        line.startswith(("| `BRIDGE_", "| `CONSUMER_")) for page in pages for line in page.read_text().splitlines()
    )
    fields = [info for folder in folders() for info in options_of(folder.name).model_fields.values()]
    return listed + len(shared_options()) + sum(info.description is None for info in fields)


def _verbs() -> int:
    from bridge.cli import cli as bridge  # noqa: PLC0415 - the tree of commands is imported only where it is counted
    from consumers.cli import cli as consumers  # noqa: PLC0415 - as above

    return _leaves(bridge) + _leaves(consumers)


def _leaves(command: click.Command) -> int:
    if not isinstance(command, click.Group):
        return 1
    context = click.Context(command)
    below = (command.get_command(context, name) for name in command.list_commands(context))
    return sum(_leaves(each) for each in below if each is not None)


def _pages() -> int:
    files = [yaml.safe_load(path.read_text()) for path in ROOT.glob("helm/drx-bridge/files/rules/*.yaml")]
    each = (rule for rules in files for group in rules["groups"] for rule in group["rules"] if "alert" in rule)
    return len({rule["alert"] for rule in each if rule["labels"]["severity"] == "page"})


def _help_s(name: str, verb: str) -> float:
    return median(_cpu_s(name, verb, "--help") * _speed() for _ in range(RUNS))


def _speed() -> float:
    """Return the CPU seconds of the reference machine that equal one on this machine now."""
    return REFERENCE_S / _cpu_s("python", "-c", REFERENCE)


def _cpu_s(name: str, *arguments: str) -> float:
    program = [str(Path(sys.executable).with_name(name)), *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=_environment())  # noqa: S603 - ours
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _serve() -> tuple[list[Path], float, float]:
    """Return the project's files that an idle `serve` loads, its memory in MiB, and its CPU time until it is ready."""
    with tempfile.TemporaryDirectory() as directory:
        runs = [_serve_once(Path(directory), number) for number in range(2)]
    return runs[0][0], min(run[1] for run in runs), min(run[2] for run in runs) * median(_speed() for _ in range(RUNS))


def _serve_once(directory: Path, number: int) -> tuple[list[Path], float, float]:
    here = directory / str(number)
    secrets, modules = here / "secrets", here / "modules"
    secrets.mkdir(parents=True)
    (secrets / "current").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    port = free_port()
    environment = {
        **_environment(),
        "BRIDGE_HTTP__HOST": "127.0.0.1",
        "BRIDGE_HTTP__PORT": str(free_port()),
        "BRIDGE_MANAGEMENT__HOST": "127.0.0.1",
        "BRIDGE_MANAGEMENT__PORT": str(port),
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        "BRIDGE_SPOOL__DIR": str(here / "spool"),
        "BRIDGE_SOURCES__DRX__PROFILE": "drx_standard",
        "BRIDGE_SOURCES__DRX__ENVIRONMENT": "sandbox",
        "BRIDGE_SOURCES__DRX__SECRETS_DIR": str(secrets),
    }
    with (here / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, "-c", _SERVE, str(modules)], env=environment, stdout=log, stderr=log, cwd=ROOT
        )
    watched = psutil.Process(process.pid)
    try:
        _until_ready(process, port)
        times = watched.cpu_times()
        rss = watched.memory_info().rss
    finally:
        process.terminate()
        process.wait(READY_WITHIN_S)
    files = [Path(line) for line in modules.read_text().splitlines()]
    return [file for file in files if file.is_relative_to(ROOT / "bridge")], rss / 2**20, times.user + times.system


def _environment() -> dict[str, str]:
    """Return the environment without settings, in which compiled modules are kept."""
    dropped = ("BRIDGE_", "CONSUMER_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def _until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    import http.client  # noqa: PLC0415 - a child's import of it is the reference

    end = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    sys.exit("budget: serve did not get ready")


def _bounds() -> dict[str, float]:
    return tomllib.loads(BOUNDS.read_text())


def _write(bounds: Mapping[str, float]) -> None:
    head = "".join(line for line in BOUNDS.read_text().splitlines(keepends=True) if line.startswith("#"))
    BOUNDS.write_text(head + "".join(f'"{name}" = {value:g}\n' for name, value in bounds.items()))


def _lowered(name: str, value: float) -> float:
    step = next((step for unit, step in STEPS.items() if name.endswith(unit)), 0)
    if step:
        return ceil(value / step) * step
    return next((round(value * margin, 2) for unit, margin in MARGIN.items() if f", {unit}" in name), value)


def _text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def main(arguments: list[str]) -> int:
    is_, bounds = measured(), _bounds()
    if "--lower" in arguments:
        bounds = {name: min(bounds.get(name, float("inf")), _lowered(name, value)) for name, value in is_.items()}
        _write(bounds)
    click.echo(f"{'':28}{'is':>9}{'allowed':>9}")
    over = {name for name, value in is_.items() if value > bounds[name] and ("," not in name or IS_MEASURED)}
    for name, value in is_.items():
        click.echo(f"{name:28}{_text(value):>9}{_text(bounds[name]):>9}{'  over' if name in over else ''}")
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
