"""The third-party programs Benthos and vegeta, a load generator; `make peers` builds both (`tests/peers`).

Benthos is an alternative to the ingress: `http_server`, a check of the HMAC in bloblang, `schema_registry_encode` and
`kafka_franz`, acknowledged by all replicas. It keeps the body as text in an Avro record of four fields.
"""

import base64
import os
import subprocess
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import orjson

from bridge.dev.ports import HOST, free_port
from bridge.dev.processes import Child
from tests.bench.load import Load
from tests.bench.processes import cpu_s
from tests.bench.servers import Server
from tests.bench.traffic import HMAC_KEY, PATH, requests
from tests.installed import ROOT

TOOLS = ROOT / "build" / "tools"
PROGRAMS = (TOOLS / "peers", TOOLS / "vegeta")
TOPIC = "bench.peer"
SCHEMA = {
    "type": "record",
    "name": "Delivery",
    "fields": [{"name": name, "type": "string"} for name in ("id", "type", "prescription_id", "body")],
}
RATE, RATE_S = 2_000, 6


class Registry(BaseHTTPRequestHandler):
    """A registry with one schema for all subjects."""

    def do_GET(self) -> None:
        document = {"id": 1, "version": 1, "subject": "bench.peer-value", "schema": orjson.dumps(SCHEMA).decode()}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(orjson.dumps(document))


def benthos(directory: Path, bootstrap_servers: str, *, registry: str) -> Server:
    """Configure Benthos with one processor for each equivalent stage of the ingress."""
    port = free_port()
    key = base64.b64encode(HMAC_KEY).decode()
    check = f"""
        let signed = meta("Webhook-Id").or("") + "." + meta("Webhook-Timestamp").or("") + "." + content().string()
        let mac = $signed.hash("hmac_sha256", "{key}".decode("base64").string()).encode("base64")
        meta key = this.data.prescription_id
        root = if "v1," + $mac != meta("Webhook-Signature").or("") {{ throw("signature") }} else {{
          {{"id": this.id, "type": this.type, "prescription_id": this.data.prescription_id, "body": content().string()}}
        }}
    """
    configuration = {
        "http": {"enabled": False},
        "logger": {"level": "ERROR"},
        "input": {"http_server": {"address": f"{HOST}:{port}", "path": PATH}},
        "pipeline": {
            "processors": [
                {
                    "try": [
                        {"mapping": check},
                        {
                            "schema_registry_encode": {
                                "url": registry,
                                "subject": "bench.peer-value",
                                "avro_raw_json": True,
                            }
                        },
                    ]
                }
            ]
        },
        "output": {
            "reject_errored": {
                "kafka_franz": {
                    "seed_brokers": bootstrap_servers.split(","),
                    "topic": TOPIC,
                    "key": '${! meta("key") }',
                    "max_in_flight": 64,
                }
            }
        },
    }
    file = directory / "benthos.json"
    file.write_bytes(orjson.dumps(configuration))
    child = Child("benthos", command=[str(PROGRAMS[0]), "-c", str(file)], cwd=directory, log=directory / "benthos.log")
    return Server(child, port, (TOPIC,))


def attacked(server: Server, directory: Path) -> Load:
    """Let vegeta make requests at a constant rate (open loop), and return its results."""
    count, first = RATE * RATE_S, server.made
    server.made += count
    targets = directory / "targets"
    with targets.open("wb") as file:
        for request in requests(first, count):
            head, _, body = request.partition(b"\r\n\r\n")
            lines = [line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:]]
            headers = {each: [value] for each, value in lines if each != "Content-Length"}
            url = f"http://{HOST}:{server.port}{PATH}"
            body_64 = base64.b64encode(body).decode()
            file.write(orjson.dumps({"method": "POST", "url": url, "header": headers, "body": body_64}) + b"\n")
    command = [str(PROGRAMS[1]), "attack", "-format=json", "-lazy", f"-targets={targets}", f"-rate={RATE}/s"]
    before, began = cpu_s(server.child), time.monotonic()
    attack = subprocess.run(  # noqa: S603 - our own command line
        [*command, f"-duration={RATE_S}s", "-workers=64", "-connections=64", "-max-workers=1024", "-timeout=10s"],
        stdout=subprocess.PIPE,
        env=os.environ | {"GOMAXPROCS": "1"},
        check=True,
    )
    elapsed_s, used_s = time.monotonic() - began, cpu_s(server.child) - before
    report = [str(PROGRAMS[1]), "report", "-type=json"]
    told = orjson.loads(subprocess.run(report, input=attack.stdout, stdout=subprocess.PIPE, check=True).stdout)  # noqa: S603 - as above
    refused = sum(number for code, number in told["status_codes"].items() if not code.startswith("2"))
    latencies = told["latencies"]
    server.taken |= set(range(first, first + told["requests"])) if not refused else set()
    return Load(
        count=told["requests"],
        elapsed_s=elapsed_s,
        p50_ms=latencies["50th"] / 1e6,
        p99_ms=latencies["99th"] / 1e6,
        refused=[0] * refused,
        cpu_s=used_s,
    )


def is_built() -> bool:
    """Whether `make peers` has run."""
    return all(each.exists() for each in PROGRAMS)
