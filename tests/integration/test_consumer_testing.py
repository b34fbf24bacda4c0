"""The test harness for consumers shows what the runtime did."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import Counter
from pydantic import ValidationError

from bridge.contract.events import EVENT_MODELS
from bridge.errors import ConfigError, PermanentError, TransientError
from bridge.event import Event
from consumers.api import Batches, Consumer, Context, Lanes, Outgoing, Placed, Setup
from consumers.read_model.consumer import open_read_model
from consumers.testing import Attempt, Parked, an_event, running

TOPICS = ["drx.prescriptions.v1", "drx.accounts.v1"]


@pytest.mark.parametrize("event_type", EVENT_MODELS)
def test_there_is_an_event_of_every_type(event_type: str) -> None:
    event = an_event(event_type)

    assert type(event.typed()) is EVENT_MODELS[event_type]
    assert (event.type, event.key) == (event_type, "rx_1")


def test_fields_are_set_by_name_also_within_a_record() -> None:
    event = an_event("prescription.created", key="rx_7", id="evt_7", patient={"first_name": "Ada"})

    created: Any = event.typed()
    assert (event.id, created.prescription_id, created.patient.first_name) == ("evt_7", "rx_7", "Ada")


def test_a_field_or_a_type_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        an_event("prescription.created", colour="red")
    with pytest.raises(ValueError, match=r"prescription\.eaten"):
        an_event("prescription.eaten")


def test_a_word_that_an_enum_does_not_know_is_refused_with_what_to_give() -> None:
    with pytest.raises(ValidationError) as refused:
        an_event("shipment.status_changed", shipment_status="lost")

    assert refused.value.__notes__ == [
        "For a value unknown to shipment_status, pass shipment_status='UNKNOWN' and raw_shipment_status='…'."
    ]
    an_event("shipment.status_changed", shipment_status="UNKNOWN", raw_shipment_status="lost")


async def test_effects_retries_duplicates_and_parked_keys_are_seen() -> None:
    consumer = Consumer("desk", TOPICS, mode=Lanes(2, transactional=True))

    @consumer.handler
    async def handle(event: Event, context: Context) -> None:
        if event.id == "evt_busy" and context.attempt < 3:
            raise TransientError("busy")
        if event.id == "evt_never" and not healed:
            raise PermanentError("refused")
        await context.connection.execute("create table if not exists done (id text)")
        await context.connection.execute("insert into done values ($1)", event.id)

    healed: list[bool] = []
    fine, busy = an_event("prescription.sent", id="evt_fine"), an_event("prescription.sent", id="evt_busy")
    never = an_event("renewal.requested", key="rx_2", id="evt_never")
    behind = an_event("renewal.closed", key="rx_2", id="evt_behind")
    async with running(consumer) as desk:
        await desk.feed(fine, busy, fine, never, behind)

        assert await desk.fetch("select id from done order by id") == [("evt_busy",), ("evt_fine",)]
        assert [call for call in desk.calls if call.event_id == "evt_busy"] == [
            Attempt("evt_busy", n) for n in (1, 2, 3)
        ]
        assert (desk.count("applied"), desk.count("duplicate"), desk.count("retry")) == (2, 1, 2)
        assert await desk.parked() == [
            Parked("rx_2", "evt_never", "refused"),
            Parked("rx_2", "evt_behind", "key_parked"),
        ]

        await desk.release("rx_2")
        assert [each.code for each in await desk.parked()] == ["refused", "key_parked"]

        healed.append(True)
        await desk.release("rx_2")
        assert await desk.parked() == []
        assert ("evt_behind",) in await desk.fetch("select id from done")


async def test_a_consumer_that_is_built_by_a_function_gets_options_and_metrics() -> None:
    def build(setup: Setup) -> Consumer:
        seen = Counter("desk_seen", "Events seen", registry=setup.registry)

        @asynccontextmanager
        async def around() -> AsyncIterator[str]:
            yield setup.options["session"]

        consumer = Consumer("desk", TOPICS, mode=Batches(), around=around)

        @consumer.handler
        async def handle(batch: Sequence[Placed], _connection: Any) -> None:
            for _, context in batch:
                assert context.resource == "open"
                seen.inc()

        @consumer.job(every_s=60)
        async def sweep(connection: Any) -> None:
            await connection.execute("create table swept ()")

        return consumer

    async with running(build, options={"session": "open"}) as desk:
        await desk.feed(an_event("prescription.sent"), an_event("system.ping"))
        await desk.run_jobs()

        assert desk.registry.get_sample_value("desk_seen_total") == 2
        assert await desk.fetch("select count(*) from swept") == [(0,)]


async def test_a_bug_of_a_handler_is_found_by_what_is_parked() -> None:
    """The wrapper that notes the calls is in between."""
    consumer = Consumer(name="desk", topics=TOPICS)

    @consumer.handler
    async def handle(event: Event, context: Context) -> None:
        del context
        event.value["nothing"]

    async with running(consumer) as desk:
        await desk.feed(an_event("renewal.requested", key="rx_1", id="evt_1"))
        (parked,) = await desk.parked()

    assert parked == Parked("rx_1", "evt_1", "unexpected")
    line = handle.__code__.co_firstlineno + 3
    assert parked.raised == f"KeyError at {__name__}:{line}"


async def test_options_of_a_consumer_that_takes_none_are_refused() -> None:
    """Or a test would pass on settings that no process has."""
    consumer = Consumer(name="desk", topics=TOPICS)
    for made in (consumer, lambda: consumer):
        with pytest.raises(ConfigError, match="takes none"):
            async with running(made, options={"url": "https://desk.test"}):
                pass


async def test_consumers_that_run_at_a_time_have_nothing_in_common() -> None:
    query = "select prescription_id from read_model.prescription"
    async with running(open_read_model) as one, running(open_read_model) as other:
        for desk, key in ((one, "rx_1"), (other, "rx_2")):
            await desk.feed(an_event("prescription.sent", id="evt_same", key=key))

        assert (await one.fetch(query), await other.fetch(query)) == ([("rx_1",)], [("rx_2",)])


@pytest.mark.parametrize("mode", [Lanes(2), Lanes(2, transactional=True), Batches()], ids=["lanes", "sql", "batches"])
async def test_what_a_handler_publishes_is_kept_once_with_the_event_it_comes_from(mode: Lanes | Batches) -> None:
    """Also through failure, a repeat and a release."""
    consumer = Consumer("desk", TOPICS, mode=mode, publishes=["desk.done"])
    healed: list[bool] = []

    async def one(event: Event, context: Context) -> None:
        context.publish("desk.done", event.key, event.id, headers={"kind": event.type})
        if event.id == "evt_never" and not healed:
            raise PermanentError("refused")

    async def many(batch: Sequence[Placed], _connection: Any) -> None:
        for event, context in batch:
            await one(event, context)

    consumer.handler(many if isinstance(mode, Batches) else one)
    fine = an_event("prescription.sent", id="evt_fine")
    never, behind = (an_event("renewal.closed", key="rx_2", id=f"evt_{name}") for name in ("never", "behind"))
    async with running(consumer) as desk:
        await desk.feed(fine, fine, never, behind)
        assert await desk.published() == [Outgoing("desk.done", b"rx_1", b"evt_fine", {"kind": "prescription.sent"})]

        healed.append(True)
        await desk.release("rx_2")
        assert [each.value for each in await desk.published()] == [b"evt_fine", b"evt_never", b"evt_behind"]
