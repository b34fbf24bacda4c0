"""The simulated disk compared with the real one: equal calls have equal results."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bridge.spool.disk import Disk
from tests.simulation.disk import PAGE, SimulatedDisk
from tests.simulation.loop import Process
from tests.simulation.world import World

NAMES = ("a.segment", "b.segment", "a.positions")


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except OSError as exc:
        return type(exc).__name__


def _create(disk: Disk, path: Path, handles: list[int]) -> None:
    handles.append(disk.create(path))


def play(disk: Disk, directory: Path, seed: int) -> list[Any]:
    """Make calls in an order that chance decides; return what each came to."""
    rng = random.Random(seed)  # noqa: S311 - decides a test, guards nothing
    handles: list[int] = []
    found: list[Any] = []
    for _ in range(60):
        path, content = directory / rng.choice(NAMES), rng.randbytes(rng.choice((1, 19, PAGE, PAGE + 9)))
        calls: list[Callable[[], Any]] = [
            partial(_create, disk, path, handles),
            partial(disk.read, path, 2, 10),
            partial(disk.size, path),
            partial(disk.append, path, content),
            partial(disk.extend, path, content),
            partial(disk.write_over, path, content, [(1, 3), (PAGE - 1, PAGE + 1)]),
            partial(disk.unlink, path),
            partial(disk.rename, path, directory / "c.segment"),
            lambda: sorted(disk.names(directory)),
            partial(disk.may_read, path),
            partial(disk.probe, directory),
        ]
        if handles:
            handle = handles[-1]
            calls += [
                partial(disk.write, handle, content),
                partial(disk.sync, handle),
                partial(disk.truncate, handle, 2),
                lambda: disk.close(handles.pop()),
            ]
        found.append(outcome(rng.choice(calls)))
    for handle in handles:
        disk.close(handle)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_the_same_calls_come_to_the_same_as_on_the_real_disk(tmp_path: Path, seed: int) -> None:
    assert play(SimulatedDisk(World(seed), "test"), tmp_path, seed) == play(Disk(), tmp_path, seed)


def test_a_second_process_does_not_get_the_lock_until_the_first_has_ended() -> None:
    world = World(0)
    disk, one, two = SimulatedDisk(world, "test"), Process(world.loop, "one"), Process(world.loop, "two")
    assert one.context.run(lambda: outcome(lambda: disk.lock(Path("/spool")))) != "BlockingIOError"
    assert two.context.run(lambda: outcome(lambda: disk.lock(Path("/spool")))) == "BlockingIOError"

    one.end()

    assert two.context.run(lambda: outcome(lambda: disk.lock(Path("/spool")))) != "BlockingIOError"


def test_a_power_cut_leaves_what_was_synced_and_may_take_the_rest() -> None:
    found = set()
    for seed in range(100):
        disk, path = SimulatedDisk(World(seed), "test"), Path("/spool/a.segment")
        handle = disk.create(path)
        disk.sync_directory(path.parent)
        disk.write(handle, b"synced")
        disk.sync(handle)
        disk.write(handle, b"n" * 2 * PAGE)
        disk.cut_power()
        content = disk.read(path, 0, 3 * PAGE)
        assert content.startswith(b"synced")
        found |= {(len(content) - 6, content[6:7], content[PAGE : PAGE + 1])}

    assert {(0, b"", b""), (2 * PAGE, b"n", b"n"), (2 * PAGE, b"\0", b"n"), (2 * PAGE, b"n", b"\0")} <= found


def test_a_failed_sync_leaves_any_mix_of_old_and_new_pages_for_good_except_of_those_written_again() -> None:
    old, new, found = b"o" * PAGE, b"n" * PAGE, set()
    for seed in range(50):
        disk, path = SimulatedDisk(World(seed), "test"), Path("/spool/a.segment")
        handle = disk.create(path)
        disk.sync_directory(path.parent)
        disk.write(handle, old * 3)
        disk.sync(handle)
        disk.faults.sync = 1.0
        assert outcome(partial(disk.write_over, path, new * 3, [(0, 3 * PAGE)])) == "OSError"
        disk.faults.sync = 0.0
        disk.write_over(path, new * 3, [(PAGE + 1, PAGE + 2)])
        assert disk.read(path, 0, 3 * PAGE) == new * 3
        disk.cut_power()
        content = disk.read(path, 0, 3 * PAGE)
        assert content[PAGE : 2 * PAGE] == new
        found.add((content[:PAGE], content[2 * PAGE :]))

    assert {(old, old), (old, new), (new, old), (new, new)} <= found
