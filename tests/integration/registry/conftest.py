"""The registry of `schemas serve` as a process, and our records as bytes."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.avro.codec import Codec
from bridge.ingress.profiles.profile import Mapped
from bridge.registry.loader import bundled
from tests.integration.registry.registry_parts import Sample, Served
from tests.unit.profile_documents import SAMPLES, map_body

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    lock = bundled()
    codec = Codec(schemas=lock.schemas(), ids=lock.ids())
    found = []
    for path in (*sorted(SAMPLES.glob("native/*.json")), SAMPLES / "edge" / "02_unknown_type.json"):
        outcome = map_body(path.read_bytes())
        assert isinstance(outcome, Mapped), path.name
        for event in outcome.events:
            record = "drx.v1." + "".join(word.capitalize() for word in event.type.replace(".", "_").split("_"))
            value = dict(event.value)
            found.append(Sample(path.name, record, value, codec.encode(record, value)))
    assert {sample.record for sample in found} == set(lock.schemas()) - {"drx.v1.UnrecognizedDelivery"}
    return found


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def start(*options: str) -> Served:
            command = [sys.executable, "-m", "bridge", "schemas", "serve", "--port", "0", *options]
            process = subprocess.Popen(  # noqa: S603 - our own command
                command, stderr=subprocess.PIPE, text=True, cwd=ROOT
            )
            stack.callback(_end, process)
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("registry at "), line
            return Served(line.removeprefix("registry at ").strip(), process)

        yield start


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait(timeout=10)
    assert process.stderr is not None
    process.stderr.close()
