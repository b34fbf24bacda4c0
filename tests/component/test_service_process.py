"""What a process of a test has written is told with what fails beside it: the next runs remove it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.integration.service_process import LAST_LINES, ServiceProcess

WRITES = "import sys; [print(number) for number in range(1_000)]; print('complaint', file=sys.stderr)"


def fail_beside_a_process(*outputs: Path) -> None:
    command = [sys.executable, "-c", WRITES]
    with ServiceProcess(command, {}, outputs=(outputs[0], outputs[1]), management_url="") as process:
        process.ended()
        raise LookupError


def test_a_failure_tells_the_end_of_what_a_process_has_written_and_where_it_is(tmp_path: Path) -> None:
    out, err = tmp_path / "stdout", tmp_path / "stderr"

    with pytest.raises(LookupError) as caught:
        fail_beside_a_process(out, err)

    last = map(str, range(1_000 - LAST_LINES, 1_000))
    told = [note.splitlines() for note in caught.value.__notes__]
    assert told == [[f"the end of {out}:", *last], [f"the end of {err}:", "complaint"]]
