import json

from consumers.testing import an_event
from tests.audit_lines import acts
from tests.integration.consumer_process import consumer_environment, drx_consumer
from tests.read_model import open_model


async def test_the_state_and_the_events_of_a_prescription_without_identity_and_free_text(postgres: str) -> None:
    async with open_model(postgres) as model:
        await model.apply(
            an_event("fill.status_changed", fill_status="dispensed", note="CANARY"),
            an_event("prescription.processed", prescription_id="rx_2", key="rx_2"),
            an_event("other.reported", reported_type="prescription.kept_cold"),
        )
    env = consumer_environment(bootstrap_servers="127.0.0.1:1", dsn=postgres)

    code, people, _ = await drx_consumer(env, "where", "rx_1", "--history")
    _, out, err = await drx_consumer(env, "where", "rx_1", "--history", "--json", "--show-phi")

    document = json.loads(out)
    assert (code, "CANARY" in people, "CANARY" in out) == (0, False, True)
    assert "fill_status=dispensed" in people
    assert "reported_type=prescription.kept_cold" in people
    assert people.startswith("rx_1  display=dispensed ")
    assert document["state"]["dispense"] == "dispensed"
    assert [(each["event_type"], each["offset"]) for each in document["events"]] == [
        ("fill.status_changed", 0),
        ("other.reported", 2),
    ]
    assert document["events"][0]["moved"].items() >= {"dispense": "dispensed", "transmission": "processed"}.items()
    assert document["events"][1]["moved"] == {}
    assert acts(err) == [("where", "begun"), ("where", "done")]
    assert (await drx_consumer(env, "where", "rx_3", "--history"))[0] == 1
