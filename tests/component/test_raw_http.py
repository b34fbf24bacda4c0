"""The public port under raw HTTP: each case gets an allowed response, and does not affect the next sender."""

import asyncio
import json

import pytest

from bridge.dev.ports import HOST
from tests.component.test_ingress import Ingress, running
from tests.raw_http import RawCase, raw_cases, statuses
from tests.waiting import until

CASES = raw_cases()
MARKER = b"PHI-MARKER"
# A bound on a hang, not a claim about time.
HANG_S = 60


async def played(ingress: Ingress, case: RawCase) -> bytes:
    """Send a case part by part, close the sending side, and return what came until the server closed."""
    reader, writer = await asyncio.open_connection(HOST, ingress.port)
    async with asyncio.timeout(HANG_S):
        try:
            for number, part in enumerate(case.pieces()):
                if number:  # so that it is another read
                    await asyncio.sleep(0.001)
                writer.write(part)
                await writer.drain()
            writer.write_eof()
        except (ConnectionError, OSError):  # it has answered and closed before everything was sent
            pass
        received = b""
        try:
            while part := await reader.read(65_536):
                received += part
        except ConnectionError:
            pass
        finally:
            writer.close()
    return received


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_raw_http(case: RawCase, capfd: pytest.CaptureFixture[str]) -> None:
    async with running() as ingress:
        received = await played(ingress, case)
        answers = list(statuses(received, head=case.parts[0].startswith("HEAD")))
        status, _ = await ingress.post()
        await until(lambda: ingress.admission.count == 0 and not ingress.server.held_bytes)

    assert " ".join(str(code) for code, _ in answers) in case.answers
    assert not case.code or json.loads(answers[-1][1])["code"] == case.code
    assert all(body == b"" or json.loads(body)["outcome"] for _, body in answers)
    assert MARKER not in received
    assert MARKER.decode() not in "".join(capfd.readouterr())
    assert status == 200
    assert len(ingress.publisher.published) - 1 in case.taken
