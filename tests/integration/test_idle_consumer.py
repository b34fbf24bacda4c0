import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bridge.dev.ports import free_port
from tests.audit_lines import spoken
from tests.integration.consumer_process import consumer_environment, drx_consumer, install_code
from tests.postgres import execute

Run = Callable[..., Awaitable[tuple[int, str, str]]]

CODE = """
from consumers.api import Consumer
consumer = Consumer(name="desk", topics=["t"])
@consumer.handler
async def handle(event, context): ...
"""


@pytest.fixture
async def desk(postgres: str, tmp_path: Path) -> Run:
    """Run a command for it; its tables exist, but it has no position."""
    package = install_code(tmp_path, "desk", CODE)
    servers = f"127.0.0.1:{free_port()}"
    env = consumer_environment(bootstrap_servers=servers, dsn=postgres, env=package, KAFKA__OFFSET_RESET="none")

    async def run(*arguments: str) -> tuple[int, str, str]:
        return await drx_consumer(env, *arguments)

    assert (await run("init", "desk"))[0] == 0
    return run


async def checks(desk: Run) -> list[tuple[str, str, str]]:
    _, out, _ = await desk("doctor", "desk", "--json")
    found = json.loads(out)["checks"]
    wanted = [each for each in found if each["check"] in {"init", "parking"}]
    return [(each["verdict"], each["message"], each["advice"]) for each in wanted]


async def test_doctor_finds_what_a_start_would_refuse_and_what_is_parked(desk: Run, postgres: str) -> None:
    begin = "drx-consumer init desk --from earliest|latest|TIME"
    assert await checks(desk) == [("failed", "not initialised", begin)]

    execute(
        postgres,
        "insert into drx_consumer.progress (grp, topic, part, next_offset, epoch) values ('desk', 't', 0, 3, 1)",
        "insert into drx_consumer.parked_key (grp, topic, key, part, class, code, attempts)"
        " values ('desk', 't', 'rx_1', 0, 'bug', 'unexpected', 1)",
        "insert into drx_consumer.park_breaker (grp, opened_at) values ('desk', '2026-09-14T15:00:00Z')",
    )

    resume = "drx-consumer parked resume desk --reason …"
    assert await checks(desk) == [
        ("failed", "park limit open since 2026-09-14 15:00:00Z: nothing is handled until it is resumed", resume),
        ("warning", "parked keys: 1, records: 0", "drx-consumer parked list desk"),
    ]
    code, out, err = await desk("parked", "list", "desk")
    assert (code, f"`{resume}`" in err) == (0, True)
    assert out.split()[:8] == ["key", "partition", "class", "code", "attempts", "events", "parked_at", "release"]
    assert (await desk("parked", "resume", "desk", "--reason", "a drill"))[1] == "resume group desk\n"


async def test_a_key_that_is_not_parked_is_an_error_to_show_and_to_retry(desk: Run) -> None:
    shown = await desk("parked", "show", "desk", "rx_1")
    one = await desk("parked", "retry", "desk", "rx_1")
    both = await desk("parked", "retry", "desk", "rx_1", "rx_2")

    assert [(code, out) for code, out, _ in (shown, one, both)] == [(2, "")] * 3
    assert [spoken(err) for _, _, err in (shown, one, both)] == [
        "drx-consumer: no record of that key is parked\n",
        "drx-consumer: that key is not parked\n",
        "drx-consumer: none of these 2 keys is parked\n",
    ]
