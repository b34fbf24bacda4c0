"""The tour's end: what was taken once is not written again, and nobody can change it under the same id."""

from __future__ import annotations

import orjson

from bridge.dev.demo import Event, Sends, key_of, outgoing_of, reply_words
from bridge.dev.demo_faults import answer_faults, order_faults, state_faults, unequal
from bridge.dev.demo_outage import BEFORE, Model, Outlasted, Witness
from bridge.dev.demo_screen import Screen
from bridge.dev.demo_witness import with_id
from bridge.dev.story import Outgoing
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC


async def tour_repeats(outlasted: Outlasted, *, screen: Screen, sender: Sends, witness: Witness, model: Model) -> None:
    """Send again what was taken, then something else under its id, and go on as if nothing had been."""
    life, taken = outlasted.lives[0], outlasted.taken
    key = key_of(life[0])
    screen.chapter(
        "8  The same once more",
        "A sender that has lost an answer sends again. What is durable already is known by its id and its body.",
    )
    for number, event in enumerate((life[0], life[BEFORE]), start=1):
        answer = await sender.deliver(outgoing_of(event))
        way = "went straight to Kafka" if number == 1 else "waited on the disk"
        screen.hop(number, f"{event['type']}, which {way}, once more  →  {reply_words(answer)}")
        screen.check(
            "it is known",
            unequal(status=(answer.reply.status, 200), outcome=(answer.reply.outcome, "duplicate")),
        )
    changed = _changed(life[BEFORE])
    answer = await sender.deliver(changed)
    screen.hop(3, f"Its id with another body, well signed: ten times the quantity  →  {reply_words(answer)}")
    wanted = {
        "status": (answer.reply.status, 202),
        "outcome": (answer.reply.outcome, "parked"),
        "reason": (answer.reply.reason, "id_conflict"),
    }
    screen.check("it is kept, apart from the events", unequal(**wanted))
    answer = await sender.deliver(outgoing_of(life[taken]))
    screen.hop(4, f"The next event of {key}  →  {reply_words(answer)}")
    screen.check("the way to Kafka is straight again", answer_faults(answer))
    with screen.waiting("reading all topics from the beginning"):
        seen = await witness.everything()
    events = [each for each in seen if each.topic == PRESCRIPTIONS_TOPIC and each.key == key]
    ids = [str(event["id"]) for event in life[: taken + 1]]
    screen.check(f"all {taken + 1} events of {key} are in Kafka, each once, in order", order_faults(ids, events))
    apart = [each for each in with_id(seen, changed.id) if each.topic == UNRECOGNIZED_TOPIC]
    bodies = ([each.value.get("body") for each in apart], [changed.body])
    screen.check(f"the other body is in {UNRECOGNIZED_TOPIC}, byte for byte", unequal(bodies=bodies))
    row = await model.row(key, events=taken + 1)
    screen.check("PostgreSQL knows nothing of it", state_faults(row, taken + 1))


def _changed(event: Event) -> Outgoing:
    """Write an event with ten times the quantity."""
    medication = event["data"]["medication"]
    more = {**medication, "quantity": f"{medication['quantity']}0"}
    return Outgoing(str(event["id"]), orjson.dumps({**event, "data": {**event["data"], "medication": more}}))
