import asyncio
import json
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Producer

from bridge.dev.kafka import known_brokers
from bridge.dev.services import run_program
from bridge.dev.sources import SOURCES
from tests.integration.dev_process import DevProcess, gone, run_dev
from tests.integration.service_process import HANG_S, until
from tests.kafka import read_all
from tests.postgres import execute

pytestmark = pytest.mark.kafka

TOPIC = "drx.prescriptions.v1"


def status(url: str | urllib.request.Request) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a loopback address of ours
        code: int = answer.status
        return code


def is_up(url: str) -> bool:
    try:
        return status(url) == 200
    except OSError:
        return False


def kept(bootstrap_servers: str) -> bool:
    return b"kept" in [record.value for record in asyncio.run(read_all(bootstrap_servers, TOPIC))]


def test_the_endpoints_are_published_when_everything_answers(dev: DevProcess) -> None:
    endpoints = dev.endpoints()

    source = endpoints["sources"]["drx"]
    assert status(f"{endpoints['management']}/readyz") == 200
    assert status(f"{endpoints['registry']}/subjects") == 200
    assert set(endpoints["consumers"]) == {"read_model", "forward", "archive"}
    assert {status(f"{url}/readyz") for url in endpoints["consumers"].values()} == {200}
    assert status(f"{endpoints['receiver']}/received") == 200
    foreign = urllib.request.Request(f"{endpoints['receiver']}/received", headers={"Host": "evil.example"})  # noqa: S310 - as above
    with pytest.raises(urllib.error.HTTPError, match="421"):
        status(foreign)
    assert status(endpoints["page"]) == 200
    assert execute(endpoints["postgres"], "select to_regclass('read_model.prescription') is not null") == [[(True,)]]
    assert set(endpoints["pids"]) == {
        *("broker-1", "postgres", "registry", "ingress", "read_model", "forward", "archive", "receiver", "page")
    }
    assert (source["path"], source["profile"]) == ("/webhooks/drx", "drx_standard")
    assert set(endpoints["sources"]) == {"drx", "digitalrx", "dosespot", "photon"}
    assert {each["scheme"] for each in endpoints["sources"].values()} == {
        *("standard_webhooks", "secret_header", "body_hmac")
    }
    assert Path(source["secret_file"]).name == "current"
    assert Path(source["secret_file"]).read_text().startswith("whsec_")
    assert Path(endpoints["logs"], "ingress.log").is_file()
    assert dev.endpoints_file.stat().st_mode & 0o777 == 0o600, "it holds a password"


def test_a_shell_with_its_settings_finds_the_ingress_that_runs(dev: DevProcess) -> None:
    line = '. "$0" && drx-bridge doctor'
    done = subprocess.run(  # noqa: S603 - our own command line
        ["/bin/sh", "-c", line, dev.endpoints_file.with_name("env.sh")], capture_output=True, text=True, check=True
    )

    assert f"the ingress at {dev.endpoints()['management'].removeprefix('http://')} is ready" in done.stdout


def test_what_is_of_another_environment_is_parked_and_the_simulated_sender_says_so(dev: DevProcess) -> None:
    """Else a pipeline that parks everything would look like one that works."""
    endpoints = dev.endpoints()
    pushed = (
        "--url",
        endpoints["ingress"],
        "--secret-file",
        endpoints["sources"]["drx"]["secret_file"],
        "--count",
        "2",
    )
    other, own = (
        run_program("drx-bridge", "simulate", *pushed, "--environment", each, settings={})
        for each in ("production", "sandbox")
    )

    assert "2  202 parked environment_mismatch" in other.text
    assert "All were parked" in other.text
    assert "2  200 accepted" in own.text
    assert "parked" not in own.text


@pytest.mark.parametrize("name", SOURCES)
def test_what_each_source_pushes_is_accepted(dev: DevProcess, name: str) -> None:
    endpoints = dev.endpoints()
    source = endpoints["sources"][name]
    pushed = ("--url", endpoints["ingress"], "--source", name, "--secret-file", source["secret_file"])

    done = run_program("drx-bridge", "simulate", *pushed, "--count", "30", "--seed", "7", "--json", settings={})

    assert done.code == 0, done.text
    answers = json.loads(done.text[done.text.index("{") :])["answers"]
    assert [(each["status"], each["outcome"]) for each in answers] == [(200, "accepted")]


def test_a_second_one_on_the_same_directory_names_the_first(dev: DevProcess) -> None:
    done = run_dev("--data-dir", str(dev.endpoints_file.parent))

    assert done.returncode == 2
    assert done.stderr.strip().endswith(f"pid {dev.pid}")
    assert is_up(f"{dev.endpoints()['management']}/readyz")


@pytest.mark.parametrize("name", ["ingress", "broker-1"])
def test_a_killed_part_comes_back_on_its_port_under_a_new_pid(dev: DevProcess, name: str) -> None:
    before = dev.endpoints()

    psutil.Process(before["pids"][name]).kill()
    dev.new_pid(name, instead_of=before["pids"][name])

    after = dev.endpoints()
    assert {**after, "pids": {}} == {**before, "pids": {}}
    until(lambda: known_brokers(after["bootstrap_servers"]), what="the broker's answer")
    until(lambda: is_up(f"{after['registry']}/subjects"), what="the registry's answer")
    until(lambda: is_up(f"{after['management']}/readyz"), what="the ingress to be ready")
    until(lambda: is_up(f"{after['receiver']}/received"), what="the receiver's answer")
    until(lambda: all(is_up(f"{url}/readyz") for url in after["consumers"].values()), what="the consumers to be ready")


def test_its_own_death_takes_all_and_loses_nothing(dev: DevProcess) -> None:
    before = dev.endpoints()
    secret = Path(before["sources"]["drx"]["secret_file"]).read_text()
    producer = Producer({"bootstrap.servers": before["bootstrap_servers"], "acks": "all"})
    producer.produce(TOPIC, b"kept", partition=0)
    assert producer.flush(HANG_S) == 0
    execute(before["postgres"], "create table kept as select 1")
    dev.end(signal.SIGKILL)
    until(lambda: all(map(gone, before["pids"].values())), what="the children's end")

    dev.start()
    until(lambda: not dev.endpoints_file.exists(), what="the stale file's end")
    after = dev.ready()
    assert {**after, "pids": {}} == {**before, "pids": {}}
    assert Path(after["sources"]["drx"]["secret_file"]).read_text() == secret
    assert kept(after["bootstrap_servers"])
    assert execute(after["postgres"], "select * from kept") == [[(1,)]]

    assert dev.end(signal.SIGTERM) == 0
    assert all(map(gone, after["pids"].values()))
    assert not dev.endpoints_file.exists()


def refused(*arguments: str) -> str:
    done = run_dev(*arguments)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines), done.stdout) == (2, 1, ""), done.stderr
    return lines[0]


def test_what_stands_in_the_way_of_a_start_is_one_line(tmp_path: Path) -> None:
    """A directory below a regular file, which not even root can enter, and a port in use."""
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "dev"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        assert f"--ingress-port {port}: in use" in refused("--data-dir", str(tmp_path), "--ingress-port", str(port))
    assert f"{below}" in refused("--data-dir", str(below))
