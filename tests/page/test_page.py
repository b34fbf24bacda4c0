import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from bridge.dev.page.feed import SHOWN
from bridge.dev.ports import free_port
from bridge.dev.processes import spawn
from bridge.dev.sources import SOURCES
from bridge.dev.traffic import scenario
from bridge.response_codes import REFUSED
from bridge.sender.signing import read_signer
from tests.integration.dev_process import DevProcess
from tests.integration.service_process import HANG_S, until
from tests.page.browser import axe, chromium, missing
from tests.ports import listens

pytestmark = [pytest.mark.kafka, pytest.mark.skipif(bool(missing()), reason=missing() or "nothing is missing")]

HOSTILE = "<img/src=x/onerror=alert(1)><script>alert(2)</script>"
VIEWPORTS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


class Stack:
    """The stack, as a sender and as a person at a shell."""

    def __init__(self, folder: Path, dev: DevProcess) -> None:
        self.folder = folder
        self.endpoints = dev.ready()
        self._sign = read_signer(SOURCES["drx"].configured, Path(self.endpoints["sources"]["drx"]["secret_file"]))
        self._rng = random.Random()  # noqa: S311 - ids, not keys

    def story(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in scenario(self._rng)]

    def post(self, event: dict[str, Any], **headers: str) -> int:
        body = json.dumps(event).encode()
        signed = {"content-type": "application/json", **self._sign(event["id"], int(time.time()), body), **headers}
        url = f"{self.endpoints['ingress']}/webhooks/drx"
        try:
            with urlopen(Request(url, body, signed)) as answer:  # noqa: S310 - a loopback address of ours
                return int(answer.status)
        except HTTPError as exc:
            return exc.code

    def shell(self, command: str) -> str:
        done = subprocess.run(  # noqa: S603 - our own command line, and what the page gave to copy
            ["/bin/sh", "-c", f". {self.folder}/env.sh && {command}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("page")
    with DevProcess(folder) as dev:
        yield Stack(folder, dev)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(stack: Stack, browser: Any) -> Iterator[Any]:
    """Open the page; no request or script on it may fail or violate its policy."""
    yield from opened(browser, stack.endpoints["page"])


def opened(browser: Any, url: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    found = context.new_page()
    found.set_default_timeout(HANG_S * 500)
    wrong: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("dialog", lambda dialog: wrong.append(dialog.message))
    found.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    found.goto(url)
    found.wait_for_selector("#parts li")
    yield found
    context.close()
    assert [each for each in wrong if "favicon" not in each and "404" not in each] == []


def row(page: Any, text: str, *, outcome: str = "accepted") -> Any:
    return page.locator(f"#deliveries tr.{outcome}", has_text=text).first


def test_a_delivery_is_seen_and_followed_into_each_consumer(stack: Stack, page: Any) -> None:
    event = stack.story()[0]
    key = event["data"]["prescription_id"]

    assert stack.post(event) == 200

    row(page, key).locator("button").click()
    detail = page.locator("#detail")
    for consumer in ("read_model", "forward", "archive"):
        detail.locator("tr", has_text=re.compile(f"^{consumer}applied")).wait_for()
    text = detail.inner_text()
    assert event["id"] in text
    assert "drx.prescriptions.v1/" in text
    assert "D identity" in text
    assert event["data"]["patient"]["last_name"] not in text


def test_a_refused_delivery_says_why_and_its_repeat_is_taken(stack: Stack, page: Any) -> None:
    event = stack.story()[0]

    assert stack.post(event, **{"webhook-signature": "v1,AAAA"}) == 401
    refused = row(page, "signature_mismatch", outcome="refused")
    refused.wait_for()
    assert REFUSED["signature_mismatch"].meaning in refused.inner_text()
    assert stack.post(event) == 200

    page.select_option("select[name=outcome]", "accepted")
    row(page, event["data"]["prescription_id"]).wait_for()
    assert page.locator("#deliveries tr.refused").count() == 0


def test_the_whole_story_of_a_prescription(stack: Stack, page: Any) -> None:
    events = stack.story()
    assert {stack.post(event) for event in events} == {200}

    row(page, events[0]["data"]["prescription_id"]).locator("a").click()

    page.locator("#prescription svg text", has_text="delivered").first.wait_for()
    assert page.locator("#prescription svg g.dispensed text", has_text="dispensed").count()
    table = page.locator("#prescription section", has_text="Events").locator("tbody tr")
    until(lambda: table.count() == len(events), what="each event")
    assert "fulfillment packed" in table.nth(4).inner_text()


def test_a_parked_key_waits_until_the_command_that_is_shown_releases_it(stack: Stack, page: Any) -> None:
    event = stack.story()[0]
    key = event["data"]["prescription_id"]
    stack.shell(f"drx-consumer parked park read_model {key} --topic drx.prescriptions.v1 --reason test")
    page.click("text=Waiting")
    waiting = page.locator("#waiting tr", has_text=key)

    def is_behind() -> bool:
        """Send another: the running consumer heeds an operator within a second, and applies what comes before."""
        assert stack.post({**event, "id": f"evt_{uuid4().hex}"}) == 200
        return str(waiting.locator("td:nth-child(5)").inner_text()) != "0"

    until(is_behind, what="a record behind it")
    waiting.get_by_role("button", name="retry").click()
    stack.shell(page.evaluate("navigator.clipboard.readText()"))

    waiting.wait_for(state="detached")


def test_kafka_away_and_the_spool_draining_are_seen(stack: Stack, page: Any) -> None:
    broker, event = stack.endpoints["pids"]["broker-1"], stack.story()[0]
    stack.shell(f"kill -STOP {broker}")
    try:
        assert stack.post(event) == 202
        row(page, "prescription.created", outcome="spooled").wait_for()
        page.locator("#alarm", has_text="Kafka is away").wait_for()
    finally:
        stack.shell(f"kill -CONT {broker}")

    page.locator("#parts li", has_text="spool empty").wait_for()
    row(page, event["data"]["prescription_id"], outcome="spooled").wait_for()


def test_text_from_outside_is_text_also_where_nothing_is_masked(stack: Stack, browser: Any) -> None:
    event = stack.story()[0]
    hostile = hostile_in(event["data"]) | {HOSTILE: HOSTILE, "prescription_id": event["data"]["prescription_id"]}
    bad = {**event, "id": HOSTILE, "environment": "production"}
    port = free_port()
    command = [sys.executable, "-m", "bridge.dev.page.server", str(port), str(stack.folder), "--show-phi"]
    process = spawn(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port), what="the page")
        for page in opened(browser, f"http://127.0.0.1:{port}/"):
            assert (stack.post({**event, "data": hostile}), stack.post(bad)) == (200, 202)
            row(page, event["data"]["prescription_id"]).locator("button").click()
            page.locator("#detail td", has_text=HOSTILE).first.wait_for()
            assert page.locator("#detail td", has_text=HOSTILE).count() > 10
            page.keyboard.press("Escape")
            row(page, event["data"]["prescription_id"]).locator("a").click()
            page.wait_for_selector("#prescription svg")
            page.click("text=Waiting")
            page.locator("#waiting code", has_text=HOSTILE).first.wait_for()
            assert page.locator("img, body script").count() == 0
    finally:
        process.kill()
        process.wait()


def hostile_in(value: Any) -> Any:
    """Return a copy with the text of every field that may be any, replaced."""
    if isinstance(value, dict):
        return {name: hostile_in(inner) for name, inner in value.items()}
    return HOSTILE if isinstance(value, str) and re.search(r"[a-z] |[A-Z][a-z]", value) else value


def test_everything_is_reached_by_keyboard(stack: Stack, page: Any) -> None:
    assert stack.post(stack.story()[0]) == 200
    row(page, "prescription.created").wait_for()
    reached = focus_on(page, "#deliveries button")
    page.keyboard.press("Enter")
    page.locator("#detail h2").first.wait_for()
    assert page.evaluate("document.querySelector('#detail').contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.title") == reached

    focus_on(page, "a[href='#prescription']", by="Shift+Tab")
    page.keyboard.press("Enter")
    focus_on(page, "#find input")
    page.keyboard.type("rx_unknown")
    page.keyboard.press("Enter")
    page.locator("text=The read model does not know this prescription.").wait_for()


def focus_on(page: Any, selector: str, *, by: str = "Tab") -> str:
    """Press a key until the focus is there; return its title."""
    for _ in range(20):
        page.keyboard.press(by)
        if page.evaluate(f'document.activeElement.matches("{selector}")'):
            return str(page.evaluate("document.activeElement.title"))
    pytest.fail(f"Tab never comes to {selector}")


@pytest.mark.parametrize(("width", "scheme"), VIEWPORTS)
def test_nothing_keeps_people_out_and_nothing_is_cut_off(stack: Stack, page: Any, width: int, scheme: str) -> None:
    event = stack.story()[0]
    stack.post(event)
    stack.post({**event, "environment": "production", "id": "evt_other"})
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    row(page, event["data"]["prescription_id"]).wait_for()
    found = [check(page, "live")]
    row(page, event["data"]["prescription_id"]).locator("button").click()
    page.locator("#detail td").first.wait_for()
    found.append(check(page, "delivery"))
    page.keyboard.press("Escape")
    row(page, event["data"]["prescription_id"]).locator("a").click()
    page.wait_for_selector("#prescription svg")
    found.append(check(page, "prescription"))
    page.click("text=Waiting")
    page.locator("#waiting code").first.wait_for()
    found.append(check(page, "waiting"))

    assert found == [("live", []), ("delivery", []), ("prescription", []), ("waiting", [])]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def check(page: Any, name: str) -> tuple[str, list[Any]]:
    page.evaluate(axe())
    result = page.evaluate("axe.run()")
    grave = [each for each in result["violations"] if each["impact"] in {"serious", "critical"}]
    return name, [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in grave]


def test_in_a_flood_the_page_drops_rows_and_the_stack_drops_nothing(stack: Stack, page: Any) -> None:
    before = int(page.inner_text("#count").split()[-1])
    source = stack.endpoints["sources"]["drx"]["secret_file"]
    load = ("--url", stack.endpoints["ingress"], "--secret-file", source, "--rate", "500", "--count", "30000", "--json")

    process = spawn([sys.executable, "-m", "bridge", "simulate", *load], stdout=subprocess.PIPE, text=True)
    answers = json.loads(process.communicate()[0])["answers"]

    assert [(each["status"], each["outcome"]) for each in answers] == [(200, "accepted")]
    until(lambda: int(page.inner_text("#count").split()[-1]) == before + 30_000, what="the number of deliveries")
    assert page.locator("#deliveries tbody tr").count() == SHOWN
    page.locator("#parts li", has_text="read_model up to date").wait_for()
