"""Starts of `serve`: a configuration error is one line that names the setting, and exit code 2."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import aiohttp
import pytest

from bridge.app import open_ingress
from bridge.cli import COMMANDS, SECTIONS, main
from bridge.dev.ports import free_port, is_free
from bridge.runtime.lifecycle import run_workers
from bridge.settings import load_settings
from tests import forked
from tests.builders import SECRET
from tests.http_server import served
from tests.unit.test_token import JWKS
from tests.waiting import until

# A start that goes well never ends by itself; this only bounds a test that has gone wrong.
HANG_S = 60.0
# Stands for whatever must not be repeated, as a secret given in the wrong place.
VALUE = "hunter2hunter2hunter2"
SOURCE = "BRIDGE_SOURCES__DRX__"


@dataclass(frozen=True, slots=True)
class Outcome:
    code: object
    stdout: str
    stderr: str


Run = Callable[..., Outcome]


def run_process(*arguments: str, env: Mapping[str, str]) -> Outcome:
    return Outcome(*forked.run([sys.executable, "-m", "bridge", *arguments], env, timeout_s=HANG_S))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: for what ends before anything of a process is set up, such as logging."""
    # A service leaves a timer that ends its process 40 s after its stop, and would so end all tests.
    monkeypatch.delattr("bridge.commands.serve.run_service")

    def run_here(*arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["drx-bridge", *arguments])
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        return Outcome(ended.value.code, *capsys.readouterr())

    return run_here


def complaint(outcome: Outcome) -> str:
    assert outcome.code == 2, outcome
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("drx-bridge: ")
    assert VALUE not in outcome.stdout + outcome.stderr
    return line


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def good(tmp_path: Path, taken: int) -> dict[str, str]:
    """Give settings without a fault, but for a public port that is taken: no start may go well here."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "current").write_text(SECRET)
    return {
        "BRIDGE_HTTP__HOST": "127.0.0.1",
        "BRIDGE_HTTP__PORT": str(taken),
        "BRIDGE_MANAGEMENT__HOST": "127.0.0.1",
        "BRIDGE_MANAGEMENT__PORT": str(free_port()),
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "BRIDGE_SPOOL__DIR": str(tmp_path / "spool"),
        f"{SOURCE}PROFILE": "drx_standard",
        f"{SOURCE}ENVIRONMENT": "sandbox",
        f"{SOURCE}SECRETS_DIR": str(secrets),
    }


@pytest.mark.parametrize(
    ("change", "named", "said"),
    [
        ({f"{SOURCE}PROFILE": "absent"}, "sources.drx.profile", "drx_standard, mapped, photon_cloudevents"),
        ({"BRIDGE_HTTP__HOST": "host.invalid"}, "BRIDGE_HTTP__HOST", "no such host"),
        ({"BRIDGE_KAFAK__X": VALUE}, "BRIDGE_KAFAK__X", "unknown section"),
    ],
)
def test_a_process_that_cannot_work_ends_before_it_answers(
    good: dict[str, str], change: dict[str, str], named: str, said: str
) -> None:
    line = complaint(run_process("serve", env=good | change))

    assert named in line
    assert said in line


async def test_a_process_is_not_ready_before_it_accepts_deliveries(
    good: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in good.items():
        monkeypatch.setenv(name, value)
    stop, url = asyncio.Event(), f"http://127.0.0.1:{good['BRIDGE_MANAGEMENT__PORT']}/readyz"
    async with open_ingress(load_settings()) as (_server, *others), aiohttp.ClientSession() as session:
        working = asyncio.create_task(run_workers(others, stop=stop, drain_timeout_s=HANG_S))
        await until(lambda: not is_free(int(good["BRIDGE_MANAGEMENT__PORT"])))
        checks = {"kafka": ""}
        while checks["kafka"] != "degraded":
            async with session.get(url) as answer:
                status, checks = answer.status, (await answer.json())["checks"]
        stop.set()
        await working

    assert (status, checks["starting"]) == (503, "starting")


@pytest.mark.parametrize("section", ["HTTP", "MANAGEMENT"])
def test_a_port_that_is_taken_is_named(good: dict[str, str], taken: int, section: str) -> None:
    line = complaint(run_process("serve", env=good | {f"BRIDGE_{section}__PORT": str(taken)}))

    assert f"127.0.0.1:{taken} (Address already in use)" in line


def test_a_run_says_what_runs_when_it_can_work_and_that_it_has_stopped(good: dict[str, str]) -> None:
    env = good | {"BRIDGE_HTTP__PORT": str(free_port()), "BRIDGE_MANAGEMENT__PORT": str(free_port())}
    with subprocess.Popen([sys.executable, "-m", "bridge", "serve"], env=env, stdout=subprocess.PIPE) as process:
        timer = threading.Timer(HANG_S, process.kill)
        timer.start()
        assert process.stdout is not None
        lines = []
        for line in map(json.loads, process.stdout):
            lines.append(line)
            if line["event"] == "worker.ready":
                process.terminate()
        timer.cancel()

    started, unavailable = lines[0], next(line for line in lines if line["event"] == "worker.producer_unavailable")
    assert (process.returncode, started["event"]) == (0, "worker.started")
    assert started["sources"] == {"drx": "drx_standard, sandbox, standard_webhooks, at most 300 s old"}
    assert started["brokers"] == unavailable["address"] == good["BRIDGE_KAFKA__BOOTSTRAP_SERVERS"]
    assert started["spool"] == good["BRIDGE_SPOOL__DIR"]
    assert [line["event"] for line in lines[-3:]] == ["worker.ready", "worker.stopping", "worker.stopped"]
    assert SECRET not in json.dumps(lines)


def test_help_has_a_heading_for_each_part_of_the_work(run: Run) -> None:
    headings = re.findall(r"^(\w.*):\n  (\w+)", run("--help").stdout, re.MULTILINE)

    assert dict(headings) == {heading: next(iter(commands)) for heading, commands in SECTIONS.items()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    outcome = run(command, "--help")

    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.startswith("Usage: ")


@pytest.mark.parametrize("arguments", [("absent",), ("--absent",), ("serve", "--absent"), ("serve", "absent")])
def test_a_wrong_command_line_is_one_line_and_exit_2(run: Run, arguments: tuple[str, ...]) -> None:
    outcome = run(*arguments)

    assert (outcome.code, outcome.stdout) == (2, "")
    (line,) = outcome.stderr.splitlines()
    assert "absent" in line
    assert "--help" in line


class Keys(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(JWKS.encode())


def test_a_start_needs_the_keys_of_an_issuer_once(good: dict[str, str], tmp_path: Path) -> None:
    """The public port is taken, so a start that gets so far ends there."""
    with served(Keys) as issuer:
        env = good | {
            f"{SOURCE}SCHEME": "jwt",
            f"{SOURCE}SCHEME_ISSUER": "https://issuer.example",
            f"{SOURCE}SCHEME_AUDIENCE": "us",
            f"{SOURCE}SCHEME_JWKS_URL": f"{issuer}/keys",
            f"{SOURCE}SECRETS_DIR": str(tmp_path / "keys"),
            f"{SOURCE}ACCEPT": "no_tls,unsigned_body",
        }
        first = run_process("serve", env=env)
    again = run_process("serve", env=env)
    never = run_process("serve", env=env | {f"{SOURCE}SECRETS_DIR": str(tmp_path / "others")})

    assert (tmp_path / "keys" / "issuer.jwks.json").read_text() == JWKS
    ends = [outcome.stderr.splitlines()[-1] for outcome in (first, again, never)]
    assert all("(Address already in use)" in each for each in ends[:2])
    assert ends[2].startswith("drx-bridge: source drx: no key set can be read at http://127.0.0.1:")
    assert [outcome.code for outcome in (first, again, never)] == [2, 2, 2]
