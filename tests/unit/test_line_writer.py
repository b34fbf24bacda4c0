"""The writer of log lines: whole lines in order, a limit, counted failures, and no waiting."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from bridge.runtime.logging import QUEUE_MAX, Line, LineWriter, render

HANG_S = 60.0
# As long as a line of the log.
NUMBERED = b"%0299d\n"
PIPE_MAX = 65_536


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def rendered(line: Line) -> bytes:
    return line[2].get("text") or render(line)


def opened(file: int | None) -> LineWriter:
    writer = LineWriter()
    writer.open(file, rendered)
    return writer


def put(writer: LineWriter, text: bytes) -> None:
    writer.put(("info", 0.0, {"text": text}))


def read_until(reader: int, ending: bytes) -> bytes:
    found = b""
    while not found.endswith(ending):
        found += os.read(reader, PIPE_MAX)
    return found


def stuck(pipe: tuple[int, int]) -> LineWriter:
    """A writer to a pipe that is full: it waits in its first write."""
    os.set_blocking(pipe[1], False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(PIPE_MAX // 4096 + 1):
            os.write(pipe[1], b"-" * 4095 + b"\n")
    os.set_blocking(pipe[1], True)
    return opened(pipe[1])


def test_lines_of_many_threads_are_whole_and_each_threads_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = opened(file.fileno())

        def work(name: int) -> None:
            for number in range(500):
                put(writer, b"%d %d\n" % (name, number))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG_S)
        assert writer.flush(HANG_S)

    found = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    assert len(found) == 2000
    for name in range(4):
        assert [number for each, number in found if each == name] == list(range(500))
    assert writer.dropped == 0


def test_a_full_queue_drops_what_is_new_and_says_later_how_much(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = stuck(pipe)
    writing = threading.Event()
    write = os.write

    def noted(file: int, text: bytes) -> int:
        writing.set()
        return write(file, text)

    monkeypatch.setattr(os, "write", noted)
    put(writer, NUMBERED % 0)
    assert writing.wait(HANG_S)
    for number in range(1, 1 + QUEUE_MAX + 1000):
        put(writer, NUMBERED % number)

    assert writer.dropped == 1000
    assert not writer.flush(0.01)
    text = read_until(pipe[0], NUMBERED % QUEUE_MAX)

    found = [line for line in text.splitlines(keepends=True) if not line.startswith(b"-")]
    (said,) = (orjson.loads(line) for line in found if line.startswith(b"{"))
    assert [line for line in found if not line.startswith(b"{")] == [
        NUMBERED % number for number in range(1 + QUEUE_MAX)
    ]
    assert (said["event"], said["level"], said["lines"]) == ("worker.log_dropped", "warning", 1000)


def test_a_pipe_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    writer = stuck(pipe)
    os.set_blocking(pipe[1], False)
    put(writer, b"late\n")

    assert not writer.flush(0.05)
    assert read_until(pipe[0], b"late\n").endswith(b"-\nlate\n")
    assert writer.dropped == 0


def test_a_reader_that_is_gone_costs_lines() -> None:
    reading, writing = os.pipe()
    writer = opened(writing)
    os.close(reading)
    for _ in range(10):
        put(writer, b"line\n")

    assert writer.flush(HANG_S)
    assert writer.dropped == 10
    os.close(writing)
