"""The tour goes on without Kafka: what is taken then is durable on disk, and arrives in order when Kafka is back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from bridge.dev.demo import Event, Sends, key_of, outgoing_of, reply_words
from bridge.dev.demo_acts import DISPLAY
from bridge.dev.demo_faults import answer_faults, order_faults, state_faults, unequal
from bridge.dev.demo_hands import Output
from bridge.dev.demo_model import Row
from bridge.dev.demo_screen import Screen
from bridge.dev.demo_witness import Seen
from bridge.dev.simulator import Answer

# Of each life: so many events come before the outage, and so many while it lasts.
BEFORE, DURING = 1, 4
# Shorter words, such as an initial, could stand in sealed bytes by chance.
MARKER_MIN = 5
# A record's head, or the beginning of it.
SHOWN_BYTES = 24


class Witness(Protocol):
    """Reads the topics of the contract."""

    async def everything(self) -> list[Seen]:
        """Return all records of all topics, in the order of each partition."""


class Model(Protocol):
    """Reads the read model; `PostgresWitness` does."""

    async def row(self, key: str, *, events: int) -> Row | None:
        """Return the row of a prescription, waiting a while until it has so many events."""


class Brokers(Protocol):
    """Takes Kafka away; `PowerSwitch` does."""

    async def stop(self) -> None:
        """End every broker at once."""

    async def start(self) -> None:
        """Bring them back; return when they answer."""

    async def answering(self) -> list[str]:
        """Return those that take a connection."""


class Disk(Protocol):
    """Looks at the directory of the spool; `SpoolWitness` does."""

    def files(self) -> Mapping[str, bytes]:
        """Return every file there with its content."""

    def waiting(self) -> int:
        """Return how many events are held and not yet acknowledged by Kafka."""

    async def drained(self) -> int:
        """Return how many are left when there are none, or after a while."""


class Operates(Protocol):
    """Runs the command line of the bridge; `Operator` does."""

    async def run(self, *arguments: str) -> Output:
        """Run it to its end."""


@dataclass(frozen=True, slots=True)
class Outlasted:
    """What the outage leaves for the next chapter: lives, each with what was taken of it."""

    lives: Sequence[Sequence[Event]]
    taken: int


class OutageTour:
    """Plays two lives at one time, and takes Kafka away in the middle.

    Args:
        lives: More than `BEFORE` + `DURING` events each.
    """

    def __init__(
        self,
        *,
        screen: Screen,
        sender: Sends,
        witness: Witness,
        model: Model,
        brokers: Brokers,
        disk: Disk,
        operator: Operates,
        lives: Sequence[Sequence[Event]],
    ) -> None:
        """Keep the parts."""
        self._screen = screen
        self._sender = sender
        self._witness = witness
        self._model = model
        self._brokers = brokers
        self._disk = disk
        self._operator = operator
        self._lives = lives
        self._keys = [key_of(life[0]) for life in lives]

    async def outage(self) -> Outlasted:
        """Take Kafka away, go on, bring it back, and see that nothing is missing."""
        screen, keys = self._screen, " and ".join(self._keys)
        screen.chapter(
            "7  Kafka is away",
            "DRx does not know that, and may never send again what is refused. So nothing is refused:\n"
            "what Kafka does not take is sealed on this disk, and answered as soon as the disk has confirmed it.",
        )
        answers = [await self._deliver(event) for event in self._in_turn(0, BEFORE)]
        screen.hop(1, f"One signed event each of {keys}  →  {reply_words(answers[-1])}")
        screen.check("Kafka has taken them", [fault for each in answers for fault in answer_faults(each)])
        await self._brokers.stop()
        screen.hop(2, "Every broker is killed, as a power cut would")
        left = await self._brokers.answering()
        screen.check("no broker takes a connection", [f"{each} does" for each in left])
        screen.hop(3, "DRx goes on; the first delivery gives Kafka two seconds, and then it is known")
        for event in self._in_turn(BEFORE, BEFORE + DURING):
            answer = await self._deliver(event)
            told = f"{key_of(event)}  {reply_words(answer)}"
            screen.step(event["type"], told, checks=1, faults=spooled_faults(answer))
        await self._retried()
        await self._check_disk()
        await self._bring_back()
        await self._check_arrived()
        return Outlasted(self._lives, BEFORE + DURING)

    async def _retried(self) -> None:
        """Send one again, as a sender does whose answer was lost on the way."""
        event = self._lives[0][BEFORE]
        before = self._disk.waiting()
        answer = await self._deliver(event)
        self._screen.step(event["type"], f"once more: {reply_words(answer)}", checks=1, faults=spooled_faults(answer))
        written = self._disk.waiting() - before
        self._screen.check("the repeat is not written again", [f"{written} more on disk"] if written else [])

    async def _check_disk(self) -> None:
        screen, count = self._screen, DURING * len(self._lives)
        screen.hop(4, "What stands on the disk, as an operator sees it, and as bytes")
        output = await self._operator.run("spool", "status")
        screen.output(output.command, output.text)
        faults = [] if output.code == 0 else [f"exit code {output.code}"]
        screen.check(f"it holds {count} events", faults + unequal(events=(self._disk.waiting(), count)))
        files = self._disk.files()
        screen.pairs(
            {
                name: f"{len(content):,} bytes: {content[:SHOWN_BYTES].hex(' ', 4)} …"
                for name, content in files.items()
                if content.strip(b"\0")
            }
        )
        markers = sorted({marker for life in self._lives for event in life for marker in markers_of(event)})
        told = [f"{name} tells one" for name, content in files.items() if any(m.encode() in content for m in markers)]
        screen.check(
            f"it is sealed: of {len(markers)} names, numbers and ids in these events none stands in any file", told
        )

    async def _bring_back(self) -> None:
        screen = self._screen
        with screen.waiting("starting the brokers"):
            began = monotonic()
            await self._brokers.start()
        answered = monotonic()
        screen.hop(5, f"The brokers are back, after {answered - began:.1f} s")
        left = await self._disk.drained()
        screen.check(
            f"the spool is empty {monotonic() - answered:.1f} s later", [f"{left} events are left"] if left else []
        )

    async def _check_arrived(self) -> None:
        screen, taken = self._screen, BEFORE + DURING
        with screen.waiting("reading all topics from the beginning"):
            seen = await self._witness.everything()
        for life, key in zip(self._lives, self._keys, strict=True):
            ids = [str(event["id"]) for event in life[:taken]]
            screen.check(
                f"all {taken} events of {key} are in Kafka, each once, in the order in which they were sent",
                order_faults(ids, [each for each in seen if each.key == key]),
            )
        for key in self._keys:
            row = await self._model.row(key, events=taken)
            shown = "nothing" if row is None else row.state[DISPLAY]
            screen.check(f"and in PostgreSQL, where {key} is: {shown}", state_faults(row, taken))

    def _in_turn(self, start: int, end: int) -> Iterator[Event]:
        for number in range(start, end):
            for life in self._lives:
                yield life[number]

    async def _deliver(self, event: Event) -> Answer:
        return await self._sender.deliver(outgoing_of(event))


def spooled_faults(answer: Answer) -> list[str]:
    """Say how an answer differs from `202 spooled`."""
    return unequal(status=(answer.reply.status, 202), outcome=(answer.reply.outcome, "spooled"))


def markers_of(event: Event) -> set[str]:
    """Return every text of an event that says whom or what it is about."""
    return {text for text in (event["id"], *_texts(event["data"])) if len(text) >= MARKER_MIN}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
