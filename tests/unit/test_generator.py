import itertools
import json

from bridge.dev.story import deliveries


def test_generated_deliveries_are_all_twenty_types_with_ids_of_their_own() -> None:
    for seed in range(5):
        events = [json.loads(each.body) for each in itertools.islice(deliveries(seed), 200)]

        assert len({event["type"] for event in events}) == 20
        assert len({event["id"] for event in events}) == 200


def test_generated_events_of_one_prescription_come_in_their_order() -> None:
    latest: dict[str, tuple[str, int]] = {}
    for each in itertools.islice(deliveries(3), 2000):
        event = json.loads(each.body)
        if "sequence" in event:
            key = event["data"]["prescription_id"]
            place = (event["timestamp"], event["sequence"])
            assert place > latest.get(key, ("", 0))
            latest[key] = place
