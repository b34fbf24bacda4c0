"""The runnable snippets of README.md and docs/ run on a real stack, in the order in which they are read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.dev_process import DevProcess
from tests.integration.service_process import HANG_S

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("consumers/*/README.md"))]
# A comment before a fenced block says that it runs, and under which name it is kept if another block calls it.
BLOCK = re.compile(r"<!-- runs(?:: (?P<name>[\w.]+))? -->\n```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
BLOCKS = [block for page in PAGES for block in BLOCK.finditer(page.read_text(encoding="utf-8"))]
PROGRAMS = {block["name"]: block["text"] for block in BLOCKS if block["name"]}
# A file that a page shows; blocks that run find it beside them.
FILE = re.compile(r"<!-- file: (?P<name>[\w.]+) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
FILES = {file["name"]: file["text"] for page in PAGES for file in FILE.finditer(page.read_text(encoding="utf-8"))}


@pytest.fixture
def place(dev: DevProcess) -> Path:
    """Give a folder as the pages assume it: the stack in `stack`, the programs beside it."""
    folder = dev.endpoints_file.parents[1]
    for name, text in (PROGRAMS | FILES).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}


def shell(place: Path, command: str) -> tuple[str, str]:
    done = subprocess.run(  # noqa: S603 - the pages are ours
        ["bash", "-euc", command],  # noqa: S607 - as a reader has it
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def the_block_with(words: str) -> str:
    (text,) = (block["text"] for block in BLOCKS if block["language"] == "sh" and words in block["text"])
    return text


def first_line(place: Path, command: list[str]) -> str:
    """Start a reader, which never ends by itself, and return its first line."""
    reader = subprocess.Popen(  # noqa: S603 - the pages are ours
        command, cwd=place, env=environment(), stdout=subprocess.PIPE, text=True
    )
    with reader:
        assert reader.stdout is not None
        try:
            return reader.stdout.readline()
        finally:
            reader.kill()


def test_every_block_is_run_by_a_test_here() -> None:
    assert sorted(PROGRAMS) == ["confluent.py", "ours.py", "push.py", "sign.py"]
    shells = [block["text"] for block in BLOCKS if block["language"] == "sh"]
    assert [
        sum(word in text for text in shells)
        for word in (
            *("simulate --url", "--history", "signed.txt", "h2h.txt", "simulate --type", "rx_readme", "mapping check"),
            *("push.py", "pubsub.txt"),
        )
    ] == [1] * 9
    assert len(shells) == 9


def test_what_the_simulator_sends_is_answered_and_can_be_looked_at(place: Path) -> None:
    _, told = shell(place, the_block_with("simulate --url"))
    *before, history = the_block_with("--history").splitlines()
    behind = f"until {history.partition('#')[0]}; do sleep 0.2; done"  # a moment
    shown, _ = shell(place, "\n".join([*before, behind]))

    assert "50  200 accepted" in told
    assert "accepted" in shown
    assert "prescription.created" in shown


def test_a_delivery_signed_in_a_few_lines_is_accepted(place: Path) -> None:
    signed, answer = shell(place, "python sign.py")[0].splitlines()

    assert re.fullmatch(r"evt_\d+ \d+ v1,[A-Za-z0-9+/]{43}=", signed)
    assert answer.startswith('200 {"outcome":"accepted","id":"evt_')


@pytest.mark.parametrize(("name", "slot"), [("signed.txt", "current"), ("pubsub.txt", "issuer.pem")])
def test_verify_agrees_with_that_signature_and_with_a_token(place: Path, name: str, slot: str) -> None:
    assert shell(place, the_block_with(name)) == (
        '{"accept": true, "code": "verified"}\n',
        f"accepted: signed with the key in slot {slot}\n",
    )


def test_verify_names_the_parameters_of_a_signature(place: Path) -> None:
    code, words = shell(place, the_block_with("h2h.txt"))

    assert code == '{"accept": false, "code": "signature_malformed"}\n'
    assert "with SCHEME_FORMAT=pairs and SCHEME_SIGNATURE_NAME=s and SCHEME_TEMPLATE={timestamp}.{body}\n" in words


def test_a_body_is_signed_mapped_and_made_without_sending_it(place: Path) -> None:
    shell(place, "python sign.py")

    told, _ = shell(place, the_block_with("simulate --type"))
    assert re.search(r"^webhook-signature: v1,[A-Za-z0-9+/]{43}=$", told, re.MULTILINE)
    assert "  drx.prescriptions.v1/7  key rx_readme\n" in told
    assert "prescription_id •••" in told
    assert '"type":"prescription.sent"' in told.splitlines()[-1]


def test_tail_shows_the_event_masked(place: Path) -> None:
    shell(place, "python sign.py")

    told, _ = shell(place, the_block_with("rx_readme"))
    assert "rx_readme  PrescriptionProcessed\n" in told
    assert "prescription_id=•••" in told


@pytest.mark.parametrize(
    ("program", "shape"),
    [
        ("confluent.py", r"[a-z_]+\.[a-z_]+ (evt|dlv)_\S+ \d{4}-\d\d-\d\d \S+\+00:00\n"),
        ("ours.py", r"drx\.v1\.\w+ (evt|dlv)_\S+ \d{4}-\d\d-\d\d \S+\+00:00\n"),
    ],
)
def test_a_reader_of_a_few_lines_gets_events(place: Path, program: str, shape: str) -> None:
    shell(place, "python sign.py")

    assert re.fullmatch(shape, first_line(place, [sys.executable, program]))


def test_a_vendor_is_added_by_what_the_page_says(place: Path) -> None:
    checked, _ = shell(place, the_block_with("mapping check"))
    told, _ = shell(place, the_block_with("push.py"))

    assert "fulfillment.status_changed  dlv_" in checked
    assert "  key acme:10442\n" in checked
    assert "queue_id •••" in checked
    assert re.search(r'^200 \{"outcome":"accepted","id":"dlv_[0-9a-f]{32}"\}$', told, re.MULTILINE)
    assert "acme:10442  FulfillmentStatusChanged\n" in told
    assert "Marisol" not in checked + told
