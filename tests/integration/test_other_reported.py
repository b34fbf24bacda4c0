"""Updates of types that the contract does not know reach every team, in order and once, whatever is away meanwhile."""

import json
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyarrow import parquet  # noqa: TID251 - reads what was written

from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from tests.integration.dev_process import DevProcess
from tests.integration.ingress_process import read_records
from tests.integration.service_process import until
from tests.postgres import execute

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

INVENTED = 50
NATIVE, VENDOR = 200, 50  # prescriptions
SEND_S = 240
# What each round kills while it is sent.
FAULTS: tuple[tuple[str, ...], ...] = (("broker-1",), ("ingress",), ("read_model", "forward", "archive"))
Body = dict[str, Any]


def native(number: int, step: int) -> Body:
    """The update between two events that the contract knows."""
    word, status = [
        ("prescription.sent", "status"),
        (f"prescription.invented_{number % INVENTED}", "status"),
        ("prescription.processed", "verify"),
    ][step]
    return {
        "id": f"evt_{number}_{step}",
        "type": word,
        "version": "1",
        "timestamp": f"2026-01-12T08:0{step}:00Z",
        "environment": "sandbox",
        "account_id": "acct_1",
        "data": {
            "prescription_id": f"rx_{number}",
            "medication": {"description": "lisinopril 10 mg"},
            **({"delivery_mode": "erx", "attempt": 1} if step == 0 else {}),
            "network_status": {"kind": status, "code": "000"},
        },
    }


def photon(number: int, step: int) -> Body:
    kind = ("order:placed", f"invented:{number % INVENTED}", "order:completed")[step]
    return {
        "id": f"ce_{number}_{step}",
        "specversion": "1.0",
        "type": f"photon:{kind}",
        "time": f"2026-01-12T08:0{step}:00Z",
        "source": "org:org_1",
        "data": {"id": f"ord_{number}", "fills": [{"id": f"fil_{number}", "prescription": {"id": f"rx_{number}"}}]},
    }


def dosespot(number: int, step: int) -> Body:
    kind = ("PrescriptionResult", f"Invented{number % INVENTED}", "PrescriptionResult")[step]
    at = f"2026-01-12T08:0{step}:00.0000000+00:00"
    status = {} if step == 1 else {"PrescriptionStatus": (4, 0, 13)[step]}
    return {"EventType": kind, "Data": {"PrescriptionId": number, "ClinicId": 21, "StatusDateTime": at, **status}}


SOURCES: dict[str, tuple[int, str, Callable[[int, int], Body], Callable[[int], str]]] = {
    "drx": (NATIVE, "rx_", native, lambda number: f"prescription.invented_{number}"),
    "photon": (VENDOR, "ph:rx_", photon, lambda number: f"photon:invented:{number}"),
    "dosespot": (VENDOR, "ds:", dosespot, lambda number: f"Invented{number}"),
}


def push(endpoints: dict[str, Any], source: str, file: Path) -> subprocess.Popen[bytes]:
    """Send a file as its sender would: line by line, again until it is taken."""
    secret = endpoints["sources"][source]["secret_file"]
    command = ["simulate", "--url", endpoints["ingress"], "--source", source, "--secret-file", secret]
    return subprocess.Popen(  # noqa: S603 - our own command line
        [sys.executable, "-m", "bridge", *command, "--scenario", str(file), "--attempts", "50", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def send_all(dev: DevProcess, directory: Path) -> None:
    for round_, killed in enumerate(FAULTS):
        endpoints = dev.endpoints()
        senders = []
        for source, (many, _, body, _) in SOURCES.items():
            file = directory / f"{source}-{round_}.ndjson"
            numbers = range(round_, many, len(FAULTS))
            # Neighbours are of different prescriptions.
            file.write_text("".join(f"{json.dumps(body(each, step))}\n" for step in range(3) for each in numbers))
            senders.append(push(endpoints, source, file))
        for name in killed:
            psutil.Process(endpoints["pids"][name]).kill()
        for name in killed:
            dev.new_pid(name, instead_of=endpoints["pids"][name])
        for sender in senders:
            told, _ = sender.communicate(timeout=SEND_S)
            assert sender.returncode == 0, told


def forwarded(url: str) -> dict[str, set[str]]:
    found = defaultdict(set)
    with urllib.request.urlopen(f"{url}/received", timeout=30) as answer:  # noqa: S310 - a loopback address of ours
        for each in json.load(answer):
            if not each["refused"]:
                found[each["headers"]["webhook-id"]].add(each["body"])
    return found


def archived(lake: Path) -> Iterator[tuple[str, str | None]]:
    for file in lake.glob("events/**/*.parquet"):
        table = parquet.read_table(file, columns=["event_id", "event_type", "reported_type"])
        yield from ((row["event_id"], row["reported_type"]) for row in table.to_pylist() if row["event_type"] != PING)


PING = "system.ping"
TIMELINE = """
    select prescription_id, event_id, event_type, body ->> 'reported_type' from read_model.timeline
    order by prescription_id, counts_from, sequence, event_id, source
"""


async def test_updates_of_unknown_types_reach_every_team_in_order_and_once(tmp_path: Path) -> None:
    wanted = {
        f"{prefix}{number}": (None, word(number % INVENTED), None)
        for many, prefix, _, word in SOURCES.values()
        for number in range(many)
    }
    with DevProcess(tmp_path / "stack") as dev:
        dev.ready()
        send_all(dev, tmp_path)
        endpoints = dev.endpoints()

        def applied() -> list[tuple[Any, ...]]:
            try:
                (rows,) = execute(endpoints["postgres"], TIMELINE)
            except OSError:
                return []
            return list(rows) if len(rows) >= 3 * len(wanted) else []

        rows = until(applied, what="each event in the timeline")
        told: dict[str, list[str | None]] = defaultdict(list)
        for key, _, _, word in rows:
            told[key].append(word)
        assert {key: tuple(words) for key, words in told.items()} == wanted
        assert len(rows) == 3 * len(wanted)

        ids = {event_id: word for _, event_id, _, word in rows}
        posted = until(
            lambda: found if (found := forwarded(endpoints["receiver"])).keys() >= ids.keys() else {},
            what="each event at the receiver",
        )
        assert posted.keys() == ids.keys()
        for event_id, word in ids.items():
            # A sender that dies between its post and its commit posts the same again.
            (body,) = posted[event_id]
            assert word is None or json.loads(body)["type"] == word

        lake = Path(endpoints["lake"])
        kept = until(
            lambda: found if len(found := list(archived(lake))) >= len(ids) else [], what="each event in the lake"
        )
        assert sorted(kept, key=str) == sorted(ids.items(), key=str)
        records = await read_records(endpoints["bootstrap_servers"], lambda _: True)
        assert [each.topic for each in records if each.topic == UNRECOGNIZED_TOPIC] == []
