"""Updates of types that the contract does not know reach every team, in order and once, whatever is away meanwhile."""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from tests.integration.dev_process import DevProcess, archived, received
from tests.integration.ingress_process import read_records
from tests.integration.service_process import until
from tests.postgres import execute

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

PRESCRIPTIONS, INVENTED = 200, 50
SEND_S = 240
# What each round kills while it is sent.
FAULTS: tuple[tuple[str, ...], ...] = (("broker-1",), ("ingress",), ("read_model", "forward", "archive"))
STEPS = ("prescription.sent", "prescription.invented_{}", "prescription.processed")
TIMELINE = """
    select prescription_id, event_id, body ->> 'reported_type' from read_model.timeline
    order by prescription_id, counts_from, sequence, event_id, source
"""


def body(number: int, step: int) -> str:
    """Return the body of one of three events, of which the contract does not know the second."""
    document = {
        "id": f"evt_{number}_{step}",
        "type": STEPS[step].format(number % INVENTED),
        "version": "1",
        "timestamp": f"2026-01-12T08:0{step}:00Z",
        "environment": "sandbox",
        "account_id": "acct_1",
        "data": {
            "prescription_id": f"rx_{number}",
            "medication": {"description": "lisinopril 10 mg"},
            **({"delivery_mode": "erx", "attempt": 1} if step == 0 else {}),
            "network_status": {"kind": "verify" if step == 2 else "status", "code": "000"},
        },
    }
    return f"{json.dumps(document)}\n"


def send_all(dev: DevProcess, directory: Path) -> None:
    """Send a part in each round as its sender would: line by line, again until it is taken."""
    for number, killed in enumerate(FAULTS):
        endpoints, file = dev.endpoints(), directory / f"{number}.ndjson"
        prescriptions = range(number, PRESCRIPTIONS, len(FAULTS))
        # Neighbours are of different prescriptions.
        file.write_text("".join(body(each, step) for step in range(len(STEPS)) for each in prescriptions))
        sender = ("--url", endpoints["ingress"], "--secret-file", endpoints["sources"]["drx"]["secret_file"])
        command = [sys.executable, "-m", "bridge", "simulate", *sender, "--scenario", str(file), "--attempts", "50"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - our own command line
            for name in killed:
                psutil.Process(endpoints["pids"][name]).kill()
            for name in killed:
                dev.new_pid(name, instead_of=endpoints["pids"][name])
            assert process.wait(SEND_S) == 0


def forwarded(url: str) -> dict[str, set[str]]:
    found = defaultdict(set)
    for each in received(url):
        found[each["headers"]["webhook-id"]].add(each["body"])
    return found


def kept(lake: Path) -> list[tuple[str, str | None]]:
    return [(each["event_id"], each["reported_type"]) for each in archived(lake) if each["event_type"] != "system.ping"]


async def test_updates_of_unknown_types_reach_every_team_in_order_and_once(tmp_path: Path) -> None:
    wanted = {
        f"rx_{number}": [None, f"prescription.invented_{number % INVENTED}", None] for number in range(PRESCRIPTIONS)
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
            return list(rows) if len(rows) >= len(STEPS) * PRESCRIPTIONS else []

        rows = until(applied, what="each event in the timeline")
        told: dict[str, list[str | None]] = defaultdict(list)
        for key, _, word in rows:
            told[key].append(word)
        assert told == wanted

        ids = {event_id: word for _, event_id, word in rows}
        posted = until(
            lambda: found if (found := forwarded(endpoints["receiver"])).keys() >= ids.keys() else {},
            what="each event at the receiver",
        )
        assert posted.keys() == ids.keys()
        for event_id, word in ids.items():
            # A sender that dies between its post and its commit posts the same again.
            (text,) = posted[event_id]
            assert word is None or json.loads(text)["type"] == word

        lake = Path(endpoints["lake"])
        rows = until(lambda: found if len(found := kept(lake)) >= len(ids) else [], what="each event in the lake")
        assert sorted(rows, key=str) == sorted(ids.items(), key=str)
        records = await read_records(endpoints["bootstrap_servers"], lambda _: True)
        assert [each.topic for each in records if each.topic == UNRECOGNIZED_TOPIC] == []
