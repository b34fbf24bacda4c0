"""A process to be killed: it says on standard output what became durable, or what it delivered.

Run as `python -m tests.component.spool.victim append|drain DIRECTORY FIRST`.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

from tests.spooling import OTHER, PARTITION, an_entry, open_spool

# Two partitions, so that one segment is acknowledged here and there.
PARTITIONS = (PARTITION, OTHER)
# Enough that positions are written, and segments removed, while it goes on.
BATCH = 7
CAPACITY_BYTES = 1_048_576


def say(line: str) -> None:
    """A line that was said stays said, whatever happens to us."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def append(directory: Path, first: int) -> None:
    """Append two at a time, each call said when it is durable; acknowledge some of what is old."""
    async with open_spool(directory, capacity_bytes=CAPACITY_BYTES) as kept:
        for number in count(first, 2):
            await kept.spool.append([an_entry(number, partition=PARTITIONS[number // 2 % 2]), an_entry(number + 1)])
            say(f"durable {number}")
            if kept.spool.depth(PARTITION) > BATCH * BATCH:
                for entry in await kept.spool.peek(PARTITION, most=BATCH, most_bytes=CAPACITY_BYTES):
                    say(f"delivered {entry.ordinal}")
                kept.spool.acknowledge(PARTITION, BATCH)


async def drain(directory: Path) -> None:
    """Deliver all there is, in small batches, so that a death meets some."""
    async with open_spool(directory, capacity_bytes=CAPACITY_BYTES) as kept:
        while partitions := kept.partitions:
            for partition in partitions:
                for entry in await kept.spool.peek(partition, most=BATCH, most_bytes=CAPACITY_BYTES):
                    say(f"delivered {entry.ordinal}")
                kept.spool.acknowledge(partition, BATCH)
            await asyncio.sleep(0.001)  # Kafka would take longer
    say("empty")


def main(verb: str, directory: str, first: str = "0") -> None:
    """Run until killed or done."""
    asyncio.run(append(Path(directory), int(first)) if verb == "append" else drain(Path(directory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
