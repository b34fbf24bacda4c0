"""The end of a long-running process: its exit code and its last log line."""

import json
import subprocess
import sys
from textwrap import dedent

import pytest

# Only bounds a test that has gone wrong.
HANG_S = 60.0
OVERDUE_S = 0.2

PROCESS = """
import asyncio, os, signal, time
from contextlib import asynccontextmanager
import click
from bridge.errors import ConfigError, NotDurableError
from bridge.runtime.process import Group, run_command_line, run_service

class Worker:
    async def run(self, stop):
        {work}

@asynccontextmanager
async def open_parts():
    {opening}
    yield [Worker()]

@click.group(cls=Group, modules={{"demo": ("psutils.cli:demo", "")}})
def cli():
    pass

@cli.command()
def serve():
    return run_service(open_parts(), log_level="info", log_id_key=bytes(32),
                       drain_timeout_s=5, overdue_s={overdue_s}, gc_threshold=10_000)

@cli.command()
def wait():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(3600)

@cli.command()
def write():
    click.echo("✓ \\udcff")

@cli.command()
def read():
    open("/")

run_command_line(cli, program="drx")
"""


def ended(
    work: str, opening: str = "pass", overdue_s: float = HANG_S, *, command: str = "serve", shell: str = ":"
) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error; a `shell` begins with this."""
    code = dedent(PROCESS).format(work=work, opening=opening, overdue_s=overdue_s)
    done = subprocess.run(  # noqa: S603 - our own process
        ["sh", "-c", f'{shell}; exec "$@"', "sh", sys.executable, "-c", code, command],  # noqa: S607 - any shell
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def events(out: str) -> list[tuple[str, str]]:
    return [(line["event"], line.get("code", "")) for line in map(json.loads, out.splitlines())]


def stop_lines(name: str) -> list[tuple[str, str]]:
    return [("worker.stopping", name), ("worker.stopped", "")]


@pytest.mark.parametrize(
    ("name", "code", "work", "opening"),
    [
        ("SIGTERM", 0, "os.kill(os.getpid(), signal.SIGTERM); await stop.wait()", "pass"),
        ("SIGINT", 130, "os.kill(os.getpid(), signal.SIGINT); await stop.wait()", "pass"),
        ("SIGTERM", 0, "pass", "os.kill(os.getpid(), signal.SIGTERM); await asyncio.Event().wait()"),
    ],
    ids=["SIGTERM", "SIGINT", "a start that hangs"],
)
def test_a_signal_ends_it_in_order(name: str, code: int, work: str, opening: str) -> None:
    status, out, err = ended(work, opening)

    assert (status, err) == (code, "")
    assert events(out) == stop_lines(name)


@pytest.mark.parametrize("shell", ["trap '' INT", "exec 0<&-"], ids=["background", "no input"])
@pytest.mark.parametrize("command", ["serve", "wait"])
def test_a_job_in_the_background_ends_at_sigint_too(command: str, shell: str) -> None:
    """A shell starts it with SIGINT ignored; 130 is promised all the same."""
    status, _, _ = ended("os.kill(os.getpid(), signal.SIGINT); await stop.wait()", command=command, shell=shell)

    assert status == 130


def test_a_part_that_fails_is_logged_with_its_code_and_without_its_text() -> None:
    code, out, err = ended("raise NotDurableError('spool_full') from KeyError('rx_1')")
    line = json.loads(out)

    assert (code, err) == (1, "")
    assert (line["event"], line["level"], line["code"]) == ("worker.process_failed", "error", "spool_full")
    assert "rx_1" not in out


def test_what_the_operator_must_change_is_one_line_and_exit_2() -> None:
    assert ended("raise ConfigError('http.port: taken')") == (2, "", "drx: http.port: taken\n")


@pytest.mark.parametrize(
    ("command", "said"), [("write", "drx: No space left on device\n"), ("read", "drx: /: Is a directory\n")]
)
def test_what_the_machine_refuses_is_one_line_and_exit_2(command: str, said: str) -> None:
    """Exit 1 would say that a check has found something."""
    full = "exec >/dev/full"
    assert ended("pass", command=command, shell=full) == (2, "", said)


def test_a_stop_that_hangs_is_cut_off_also_where_the_loop_does() -> None:
    code, out, err = ended(
        "os.kill(os.getpid(), signal.SIGTERM); await stop.wait(); await asyncio.sleep(0); time.sleep(3600)",
        overdue_s=OVERDUE_S,
    )

    assert (code, err) == (1, "")
    assert events(out) == [("worker.stopping", "SIGTERM"), ("worker.stop_overdue", "")]
