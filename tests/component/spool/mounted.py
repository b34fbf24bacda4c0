"""What happens on a real small or read-only file system; a process of its own, since it mounts one.

Run as `python -m tests.component.spool.mounted full|read_only DIRECTORY` in a mount namespace of its own (`unshare
--mount`, with `--user --map-root-user` for who is not root); prints one JSON document.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bridge.errors import NotDurableError
from tests.spooling import CAPACITY_BYTES, MARKER, PARTITION, Kept, an_entry, files, open_spool, ordinals

PAYLOAD_BYTES = 1_500


def mount(directory: Path, options: str) -> None:
    """Put a file system of its own at `directory`."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=True)  # noqa: S603, S607 - constants and a test's directory


async def fill(kept: Kept, first: int) -> list[int]:
    """Append until it says no; return what it said yes to."""
    taken: list[int] = []
    try:
        while True:
            number = first + len(taken)
            await kept.spool.append([an_entry(number, payload=MARKER + bytes(PAYLOAD_BYTES))])
            taken.append(number)
    except NotDurableError:
        return taken


async def full(directory: Path) -> dict[str, Any]:
    """Run into the end of a file system of 3 MiB, make room in it by hand and by draining."""
    mount(directory, "size=3m")
    in_the_way = directory / "in_the_way"
    in_the_way.write_bytes(bytes(1_200_000))
    async with open_spool(directory, capacity_bytes=CAPACITY_BYTES) as kept:
        first = await fill(kept, 0)
        code_when_full = kept.spool.code
        in_the_way.unlink()
        refused_before = len(await fill(kept, 1000))
        await kept.tend()
        code_with_room = kept.spool.code
        second = await fill(kept, 1000)
        kept.spool.acknowledge(PARTITION, len(first))
        await kept.tend()
        rest = await kept.head()
    async with open_spool(directory) as again:
        found = ordinals(again.found)
        counted = again.value("torn_tails_total") + again.value("corrupt_records_total")
    return {
        "first": first,
        "code_when_full": code_when_full,
        "refused_before": refused_before,
        "code_with_room": code_with_room,
        "second": second,
        "rest": rest,
        "found": found,
        "counted": counted,
        "in_clear": [path.name for path in files(directory) if MARKER in path.read_bytes()],
    }


async def read_only(directory: Path) -> dict[str, Any]:
    """Find a file system read-only that was not when it was filled."""
    mount(directory, "size=8m")
    async with open_spool(directory) as kept:
        await kept.put(1, 2, 3)
    mount(directory, "remount,ro")
    async with open_spool(directory) as again:
        code, found, head = again.spool.code, ordinals(again.found), await again.head()
        again.spool.acknowledge(PARTITION, 3)
        await again.tend()
        mount(directory, "remount,rw")
        await again.tend()
        return {"code": code, "found": found, "head": head, "code_afterwards": again.spool.code}


def main(scene: str, directory: str) -> None:
    """Play one scene."""
    play = {"full": full, "read_only": read_only}[scene]
    sys.stdout.write("\n" + json.dumps(asyncio.run(play(Path(directory)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
