"""Findings of the doctor without a broker; each states a remedy, and nothing is changed."""

import asyncio
import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bridge.commands.doctor import check_kafka, check_running, doctor
from bridge.commands.doctor_spool import check_spool
from bridge.commands.secrets import check_windows
from bridge.commands.topics import advice
from bridge.dev.ports import free_port
from bridge.kafka.admin import Deviation
from bridge.kafka.routing import RoutingTable
from bridge.runtime.findings import Finding
from bridge.runtime.health import ManagementPort
from bridge.runtime.lifecycle import background
from bridge.settings import HttpSettings, KafkaSettings, Management, Settings, SourceSettings, SpoolSettings
from bridge.start_checks import check_sources, check_start
from tests.spooling import files, open_spool, write_key

SECRET = "whsec_ZHJ4LWJyaWRnZS10ZXN0LWtleS1ub3Qtc2VjcmV0ISE="
NOW = datetime(2026, 9, 14, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nowhere(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("BRIDGE_KAFKA__BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    clean.setenv("BRIDGE_SPOOL__DIR", str(tmp_path / "spool"))
    clean.setenv("BRIDGE_HTTP__PORT", str(free_port()))
    clean.setenv("BRIDGE_MANAGEMENT__PORT", str(free_port()))


def a_source(secrets_dir: Path, **changes: Any) -> SourceSettings:
    return SourceSettings(**{"profile": "drx_standard", "environment": "sandbox", "secrets_dir": secrets_dir} | changes)


def found(source: SourceSettings) -> list[Finding]:
    settings = Settings(sources={"drx": source})
    return [*check_sources(settings), *check_windows(settings, now=NOW)]


def instant(after: timedelta) -> str:
    return (NOW + after).isoformat()


@pytest.mark.parametrize(
    ("servers", "accept", "verdicts"),
    [
        ("127.0.0.1:9092,localhost:9093,[::1]:9094", "", []),
        ("127.0.0.1:9092,kafka:9092", "", ["failed", "failed"]),
        ("kafka:9092", "plaintext_kafka", ["warning", "failed"]),
    ],
)
def test_each_risk_is_found_unless_the_brokers_are_on_this_machine(
    servers: str, accept: str, verdicts: list[str]
) -> None:
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": servers}, "accept": accept})

    risks = [each for each in check_start(settings) if each.check == "risks"]

    assert [each.verdict for each in risks] == verdicts
    for name, each in zip(("plaintext_kafka", "generated_spool_key"), risks, strict=False):
        assert name in each.sentence


@pytest.mark.parametrize(
    ("lines", "verdict", "words"),
    [
        ([], "ok", "current (hmac, no end)"),
        ([f"accept_until = {instant(timedelta(days=-1))}"], "failed", "ended 2026-09-13"),
        ([f"not_before = {instant(timedelta(days=1))}"], "failed", "from 2026-09-15"),
        ([f"accept_until = {instant(timedelta(days=3))}"], "warning", "until 2026-09-17"),
        ([f"accept_until = {instant(timedelta(days=90))}"], "ok", "until 2026-12-13"),
    ],
)
def test_when_a_secret_counts_is_said(tmp_path: Path, lines: list[str], verdict: str, words: str) -> None:
    (tmp_path / "current").write_text("\n".join([SECRET, *lines]) + "\n")

    finding = found(a_source(tmp_path))[1]

    assert finding.verdict == verdict
    assert words in finding.text
    assert bool(finding.advice) == (verdict != "ok")


def test_all_that_a_start_would_refuse_is_found_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRIDGE_HTTP__TRUSTED_PROXIES", "0.0.0.0/0")
    monkeypatch.setenv("BRIDGE_KAFKA__ROUTES", '{"*": "two words"}')
    monkeypatch.setenv("BRIDGE_KAFKA__BOOTSTRAP_SERVERS", "host:port")
    monkeypatch.setenv("BRIDGE_REGISTRY__URL", "registry")

    code = doctor.main(["--json"], standalone_mode=False)

    checks = json.loads(capsys.readouterr().out)["checks"]
    failed = [each["check"] for each in checks if each["verdict"] == "failed"]
    assert (code, failed) == (1, ["kafka", "risks", "risks", "http", "routes", "registry", "sources"])


def test_every_check_is_one_line_and_what_failed_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([], standalone_mode=False) == 1

    lines = capsys.readouterr().out.splitlines()
    checks = ["config", "log", "sources", "kafka", "registry", "spool", "spool", "spool", "process"]
    assert [line.split()[1] for line in lines] == checks
    assert all(("→" in line) == (not line.startswith("✓")) for line in lines)


async def test_a_broker_that_accepts_connections_and_says_nothing_fails(clean: pytest.MonkeyPatch) -> None:
    clean.setattr("bridge.kafka.admin.ADMIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{frozen.getsockname()[1]}")
        findings = await check_kafka(kafka, routes=RoutingTable(kafka.routes))
    (finding,) = findings
    assert (finding.check, finding.verdict) == ("kafka", "failed")
    assert "accepts connections but does not respond: frozen" in finding.text


@pytest.mark.parametrize("port", ["http", "management"])
@pytest.mark.parametrize("how", ["closes", "is silent", "drips"])
async def test_a_process_that_accepts_connections_and_says_nothing_fails(
    clean: pytest.MonkeyPatch, how: str, port: str
) -> None:
    clean.setattr("bridge.commands.doctor._ASK_S", 0.2)
    ended = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while how != "closes" and not reader.at_eof():
            writer.write(b"H" if how == "drips" else b"")
            await asyncio.sleep(0.05)
        writer.close()
        ended.set()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        ports = {"http": free_port(), "management": free_port(), port: server.sockets[0].getsockname()[1]}
        http, management = HttpSettings(port=ports["http"]), Management(port=ports["management"])
        (finding,) = [each async for each in check_running(http, management)]
        await ended.wait()

    assert (finding.check, finding.verdict) == ("process", "failed")
    assert "the ingress hangs" in finding.text
    assert "HeartbeatMissing" in finding.advice


@pytest.mark.parametrize(
    ("found", "words"), [("24", "harmless, leave the setting"), ("6", "set BRIDGE_KAFKA__PARTITIONS")]
)
def test_only_for_lost_partitions_is_the_setting_to_be_changed(found: str, words: str) -> None:
    assert words in advice(Deviation("drx.prescriptions.v1", "partitions", expected="12", found=found))


@pytest.mark.parametrize(
    ("result", "verdict", "text"),
    [("ok", "ok", "is ready"), ("degraded full", "warning", "spool: full"), ("io_error", "failed", "spool: io_error")],
)
async def test_a_running_process_is_asked_for_what_only_it_meets(result: str, verdict: str, text: str) -> None:
    management = Management(host="127.0.0.1", port=free_port())
    port = ManagementPort(
        checks={"spool": lambda: result}, registry=CollectorRegistry(), host=management.host, port=management.port
    )
    async with background(port, drain_timeout_s=1.0):
        await port.listening.wait()
        (finding,) = [each async for each in check_running(HttpSettings(port=free_port()), management)]

    assert (finding.check, finding.verdict) == ("process", verdict)
    assert text in finding.text


@pytest.fixture
def settings(tmp_path: Path) -> SpoolSettings:
    write_key(tmp_path / "keys")
    return SpoolSettings(dir=tmp_path / "spool", key_dir=tmp_path / "keys", capacity_bytes=1_048_576)


def in_spool(settings: SpoolSettings) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_spool(settings)}


def verdicts(settings: SpoolSettings) -> dict[str, str]:
    return {check: finding.verdict for check, finding in in_spool(settings).items()}


async def fill(settings: SpoolSettings) -> None:
    settings.dir.mkdir()
    async with open_spool(settings.dir, key_dir=settings.key_dir) as kept:
        await kept.put(1, 2, 3)


def test_a_spool_that_is_not_there_yet_is_fine_and_not_made(settings: SpoolSettings) -> None:
    assert verdicts(settings) == {"spool": "ok", "spool key": "ok", "spool room": "ok"}
    assert "created at the first start" in in_spool(settings)["spool"].text
    assert not settings.dir.exists()


async def test_what_is_held_by_a_process_is_on_its_way(settings: SpoolSettings) -> None:
    settings.dir.mkdir()
    async with open_spool(settings.dir, key_dir=settings.key_dir) as kept:
        await kept.put(1, 2, 3)

        finding = in_spool(settings)["spool"]

    assert finding.verdict == "ok"
    assert "in use, 3 events" in finding.text


async def test_what_no_process_holds_is_an_orphan_and_stays_as_it_is(settings: SpoolSettings) -> None:
    await fill(settings)
    before = {path: path.read_bytes() for path in files(settings.dir)}

    finding = in_spool(settings)["spool"]

    assert finding.verdict == "warning"
    assert "3 events, and no process has it open" in finding.text
    assert "drx-bridge spool drain" in finding.advice
    room = in_spool(settings.model_copy(update={"capacity_bytes": 300}))["spool room"]
    assert (room.verdict, room.text.split(", ")[1]) == ("failed", "0 MiB more may be spooled")
    assert {path: path.read_bytes() for path in files(settings.dir)} == before


async def test_events_whose_key_is_gone_are_a_failure(settings: SpoolSettings, tmp_path: Path) -> None:
    await fill(settings)
    write_key(tmp_path / "keys", secret=b"n" * 32)

    finding = in_spool(settings)["spool"]

    assert finding.verdict == "failed"
    assert "3 events cannot be decrypted" in finding.text
    assert str(tmp_path / "keys") in finding.advice


def test_a_key_that_others_may_read_is_named_and_not_shown(
    settings: SpoolSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys" / "current"
    path.chmod(0o644)

    finding = in_spool(settings)["spool key"]

    assert (finding.verdict, finding.text) == ("failed", f"{path}: key_exposed")
    assert "chmod" in finding.advice
    assert capsys.readouterr().out == ""
