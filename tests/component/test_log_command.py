"""`drx-bridge log` makes the log lines about deliveries readable."""

import re

from click.testing import CliRunner, Result

from bridge.commands.log import log
from bridge.errors import NotDurableError
from bridge.response_codes import PARKED, REFUSED, UNAVAILABLE
from bridge.runtime.logging import render
from tests.builders import a_body
from tests.component.test_ingress import running
from tests.logs import capture_logs


def run(content: bytes, *arguments: str) -> Result:
    return CliRunner().invoke(log, arguments, input=content, standalone_mode=False)


async def test_each_delivery_is_a_line_with_its_code_and_what_that_means() -> None:
    async with running() as ingress:
        with capture_logs() as lines:
            await ingress.post()
            await ingress.post(headers={"content-type": "text/plain"})
            await ingress.post(a_body(environment="elsewhere"), webhook_id="evt_2")
            ingress.publisher.failures.append(NotDurableError("deadline"))
            await ingress.post(webhook_id="evt_3")
            await ingress.post(a_body(account_id=None), webhook_id="evt_4")
    # As `docker compose logs` prints them, among what is no line of ours.
    content = b"".join(b"ingress-1  | " + render((line.pop("log_level"), 0.0, line)) for line in lines)
    content = b"Traceback\n{no json}\n" + content + render(("info", 0.0, {"event": "worker.ready"}))

    everything = [line.split("  ", 1)[1] for line in run(content).output.splitlines()]
    failed = [line.split("  ", 1)[1] for line in run(content, "--failed", "--source", "drx").output.splitlines()]

    ids = re.findall(r'"event_id":"(\w{24})"', content.decode())
    assert everything == [
        f"accepted     drx           prescription.processed  {ids[0]}",
        f"refused      drx           content_type: {REFUSED['content_type'].meaning}",
        f"parked       drx           environment_mismatch /environment: {PARKED['environment_mismatch']}  {ids[1]}",
        f"unavailable  drx           deadline: {UNAVAILABLE['deadline']}  {ids[2]}",
        f"parked       drx           unusable missing_field /account_id  {ids[3]}",
    ]
    assert failed == everything[1:]
    assert run(content, "--source", "another").output == ""


def test_a_line_whose_time_a_collector_has_taken_is_shown_without_it() -> None:
    assert run(b'{"event":"delivery.spooled","source":null}\n').output.split() == ["spooled"]
