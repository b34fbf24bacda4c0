"""The tour goes on: a poisoned record holds up its own prescription and no other, until an operator puts it right."""

from __future__ import annotations

from collections.abc import Sequence
from getpass import getuser
from time import monotonic
from typing import Protocol

from bridge.dev.demo import Event, Sends, key_of, outgoing_of
from bridge.dev.demo_acts import DISPLAY
from bridge.dev.demo_faults import answer_faults, state_faults, unequal
from bridge.dev.demo_hands import Output
from bridge.dev.demo_model import GROUP, Decided, Row, Waiting
from bridge.dev.demo_screen import Screen
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, partition

# What a program of another team might write by mistake: JSON, where Avro belongs.
POISON = b'{"type": "prescription.processed", "note": "where is the schema?"}'
REASON = "JSON from another team"
# Of the sick prescription: so many events are applied before the poison, and so many come while its key is parked.
BEFORE, BEHIND = 2, 3


class Model(Protocol):
    """Reads the tables of the read model and of its parking lot; `PostgresWitness` does."""

    async def row(self, key: str, *, events: int) -> Row | None:
        """Return the row of a prescription, waiting a while until it has so many events."""

    async def applied(self, key: str) -> list[str]:
        """Return the ids of its events in the order in which they were written."""

    async def parked(self, key: str, *, events: int) -> list[Waiting]:
        """Return what waits under a key, waiting a while until it is so many."""

    async def decisions(self, key: str) -> list[Decided]:
        """Return what was decided about a key."""


class Intrudes(Protocol):
    """Writes past the bridge; `Intruder` does."""

    async def write(self, topic: str, partition: int, *, key: str, value: bytes) -> int:
        """Write one record without headers; return its offset."""


class Operates(Protocol):
    """Runs the command line of the consumers; `Operator` does."""

    async def run(self, *arguments: str) -> Output:
        """Run it to its end."""


class PoisonTour:
    """Plays two lives side by side and poisons one of them.

    Args:
        sick: `BEFORE` + `BEHIND` events and one more; its key is poisoned after the first ones.
        well: `BEHIND` events of another prescription in the same partition.
    """

    def __init__(
        self,
        *,
        screen: Screen,
        sender: Sends,
        model: Model,
        intruder: Intrudes,
        operator: Operates,
        sick: Sequence[Event],
        well: Sequence[Event],
        partitions: int,
    ) -> None:
        """Keep the parts."""
        self._screen = screen
        self._sender = sender
        self._model = model
        self._intruder = intruder
        self._operator = operator
        self._sick = sick
        self._well = well
        self._key, self._other = key_of(sick[0]), key_of(well[0])
        self._place = partition(self._key.encode(), partitions)

    async def poisoned(self) -> int:
        """Poison the key and see who waits and who does not; the offset of the poison."""
        screen, key = self._screen, self._key
        screen.chapter(
            "5  A poisoned record",
            "A program of another team writes to the topic, past the bridge, what nobody can decode.\n"
            f"It stands under the key of {key}, whose later events must wait for it, and nobody else's.",
        )
        await self._healthy()
        offset = await self._intruder.write(PRESCRIPTIONS_TOPIC, self._place, key=key, value=POISON)
        screen.hop(2, f"The poison, {len(POISON)} bytes of JSON  →  {PRESCRIPTIONS_TOPIC}/{self._place}@{offset}")
        parked = await self._model.parked(key, events=1)
        screen.check("its key is parked", unequal(offsets=([each.offset for each in parked], [offset])))
        screen.hop(3, f"DRx goes on with both, {key} and {self._other}, which are neighbours in the partition")
        for number in range(BEHIND):
            await self._waits(number)
            await self._goes_on(number)
        await self._check_queue(offset)
        return offset

    async def put_right(self, offset: int) -> None:
        """Skip the poison, release the key, and see that all is as if it had never been."""
        screen, key, released = self._screen, self._key, BEFORE + BEHIND
        screen.chapter(
            "6  An operator puts it right",
            "The poison is given up, with a reason that is kept; the events behind it are released.",
        )
        topic = ("--topic", PRESCRIPTIONS_TOPIC)
        await self._parked("skip", key, *topic, "--offset", str(offset), "--reason", REASON, shows=key)
        await self._parked("retry", key, *topic, shows=key)
        row = await self._model.row(key, events=released)
        screen.check(f"all that waited is applied: {_shown(row)}", state_faults(row, released))
        ids = [str(event["id"]) for event in self._sick[:released]]
        screen.check("in the order in which it was sent", unequal(order=(await self._model.applied(key), ids)))
        left = await self._model.parked(key, events=0)
        screen.check("nothing of the prescription is parked any more", [f"{len(left)} records"] if left else [])
        answer = await self._sender.deliver(outgoing_of(self._sick[released]))
        row = await self._model.row(key, events=released + 1)
        faults = answer_faults(answer) + state_faults(row, released + 1)
        screen.check(f"its next event is applied at once: {_shown(row)}", faults)
        who = getuser()
        audit = [Decided("skip", offset, who, REASON), Decided("retry", None, who, "")]
        faults = unequal(audit=(await self._model.decisions(key), audit))
        screen.check(f"the audit has both decisions, and that {who} made them", faults)

    async def _healthy(self) -> None:
        answers = [await self._sender.deliver(outgoing_of(event)) for event in self._sick[:BEFORE]]
        row = await self._model.row(self._key, events=BEFORE)
        self._screen.hop(1, f"Two signed events of {self._key}  →  in PostgreSQL: {_shown(row)}")
        faults = [fault for answer in answers for fault in answer_faults(answer)]
        self._screen.check("both are applied", faults + state_faults(row, BEFORE))

    async def _waits(self, number: int) -> None:
        """Push the next event of the sick one: accepted as ever, and appended to what waits."""
        event = self._sick[BEFORE + number]
        answer = await self._sender.deliver(outgoing_of(event))
        waiting = await self._model.parked(self._key, events=number + 2)
        faults = answer_faults(answer) + unequal(waiting=(len(waiting), number + 2))
        told = f"{self._key}  accepted, and waits: {len(waiting)} records are parked"
        self._screen.step(event["type"], told, checks=2, faults=faults)

    async def _goes_on(self, number: int) -> None:
        """Push the next event of the other one: applied at once."""
        event = self._well[number]
        answer = await self._sender.deliver(outgoing_of(event))
        answered = monotonic()
        row = await self._model.row(self._other, events=number + 1)
        took_ms = (monotonic() - answered) * 1000
        faults = answer_faults(answer) + state_faults(row, number + 1)
        told = f"{self._other}  accepted, and {took_ms:.0f} ms later in PostgreSQL: {_shown(row)}"
        self._screen.step(event["type"], told, checks=2, faults=faults)

    async def _check_queue(self, offset: int) -> None:
        """See what waits, by the command line and by the tables, while the poison stands."""
        self._screen.hop(4, "What an operator sees")
        await self._parked("list", shows=self._key)
        await self._parked("show", self._key, "--topic", PRESCRIPTIONS_TOPIC, shows=f"@{offset}  ")
        waiting = await self._model.parked(self._key, events=1 + BEHIND)
        ids = ["", *(str(event["id"]) for event in self._sick[BEFORE : BEFORE + BEHIND])]
        self._screen.check(
            "behind the poison its events wait in the order in which they were sent",
            unequal(
                order=([each.event_id for each in waiting], ids),
                classes=([each.cls for each in waiting], ["poison", *["behind"] * BEHIND]),
            ),
        )
        row = await self._model.row(self._key, events=BEFORE)
        self._screen.check(f"its row has stayed as it was: {_shown(row)}", state_faults(row, BEFORE))

    async def _parked(self, verb: str, *arguments: str, shows: str) -> None:
        """Run a verb of `drx-consumer parked`, which must end well and show some words."""
        output = await self._operator.run("parked", verb, GROUP, *arguments)
        self._screen.output(output.command, output.text)
        faults = [] if output.code == 0 else [f"exit code {output.code}"]
        faults += [] if shows in output.text else ["it does not name what it is about"]
        if faults:
            self._screen.check(f"drx-consumer parked {verb} does as it should", faults)


def _shown(row: Row | None) -> str:
    return "nothing" if row is None else row.state[DISPLAY]
